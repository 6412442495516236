//! A process that makes one io_uring_register(2) call in our place, and may be
//! abandoned when that call does not come back.
//!
//! The call takes `uring_lock` without a time limit, and a task that waits
//! for it does not even hear SIGKILL. So it is made by a process that shares
//! nothing with ours which anyone could miss: no memory, no descriptor but
//! the ring's.

use std::ffi::{c_int, c_long, c_uint};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::process::{waitid, WaitId, WaitIdOptions};

/// `IORING_REGISTER_PROBE`, include/uapi/linux/io_uring.h.
const PROBE: c_uint = 8;

/// Observers that were given up. They end when the lock is let go, and are
/// collected by whoever starts the next one.
static ABANDONED: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

/// An observer that waits for its start signal.
pub(crate) struct Observer {
    pid: u32,
    process: OwnedFd,
    start: OwnedFd,
}

/// How an observer ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The call came back with this errno: the tracepoint has been passed.
    Returned(i32),
    /// It did not come back in time; the observer was abandoned.
    TimedOut,
    /// Something else ended the process.
    Killed,
}

impl Observer {
    /// Makes the process; it does nothing before [`Observer::run`].
    pub(crate) fn new(ring: BorrowedFd<'_>) -> io::Result<Self> {
        collect_abandoned();
        let (ready, start) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let mut process: c_int = -1;
        let args = libc::clone_args {
            // Without an exit signal the program around us sees no SIGCHLD,
            // and its wait(2) calls do not meet this child.
            flags: libc::CLONE_PIDFD as u64,
            pidfd: std::ptr::from_mut(&mut process) as u64,
            child_tid: 0,
            parent_tid: 0,
            exit_signal: 0,
            stack: 0,
            stack_size: 0,
            tls: 0,
            set_tid: 0,
            set_tid_size: 0,
            cgroup: 0,
        };
        let mask = block_signals();
        // SAFETY: like fork(2): the child gets a copy of everything and only
        // runs `observe`, which makes plain system calls. `args` is complete
        // for the size that is passed.
        let pid = unsafe {
            libc::syscall(
                libc::SYS_clone3,
                &args as *const libc::clone_args,
                size_of::<libc::clone_args>(),
            )
        };
        if pid == 0 {
            observe(ready.as_raw_fd(), ring.as_raw_fd());
        }
        let error = io::Error::last_os_error();
        restore_signals(&mask);
        if pid < 0 {
            return Err(error);
        }
        // SAFETY: CLONE_PIDFD has stored a new descriptor that is ours.
        let process = unsafe { OwnedFd::from_raw_fd(process) };
        Ok(Self {
            pid: u32::try_from(pid).unwrap_or(0),
            process,
            start,
        })
    }

    /// Its number in our pid namespace.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it make its call, and waits for that at most so long.
    pub(crate) fn run(self, limit: Duration) -> io::Result<Outcome> {
        rustix::io::retry_on_intr(|| rustix::io::write(&self.start, &[1]))?;
        if !ended(self.process.as_fd(), limit)? {
            // It dies by this once it has the lock.
            let _ =
                rustix::process::pidfd_send_signal(&self.process, rustix::process::Signal::KILL);
            if !ended(self.process.as_fd(), Duration::from_millis(10))? {
                let mut list = ABANDONED.lock().unwrap_or_else(PoisonError::into_inner);
                list.push(self.process);
            } else {
                collect(self.process.as_fd());
            }
            return Ok(Outcome::TimedOut);
        }
        Ok(match collect(self.process.as_fd()) {
            Some(errno) => Outcome::Returned(errno),
            None => Outcome::Killed,
        })
    }
}

fn ended(process: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    // A limit beyond any clock is a day.
    let deadline = std::time::Instant::now() + limit.min(Duration::from_secs(86400));
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut fds = [PollFd::new(&process, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// The exit status of a process that has ended, `None` if a signal ended it.
fn collect(process: BorrowedFd<'_>) -> Option<i32> {
    // __WALL: a child without an exit signal is not met otherwise.
    let options = WaitIdOptions::EXITED
        | WaitIdOptions::NOHANG
        | WaitIdOptions::from_bits_retain(libc::__WALL as u32);
    let status = waitid(WaitId::PidFd(process), options).ok().flatten()?;
    status.exit_status()
}

fn collect_abandoned() {
    let mut list = ABANDONED.lock().unwrap_or_else(PoisonError::into_inner);
    list.retain(|process| {
        let over = ended(process.as_fd(), Duration::ZERO).unwrap_or(false);
        if over {
            collect(process.as_fd());
        }
        !over
    });
}

/// The child: waits for its start signal, lets go of everything but the ring,
/// makes the call and exits with its errno.
fn observe(ready: c_int, ring: c_int) -> ! {
    let mut byte = 0u8;
    // SAFETY: a raw system call into one byte of our own stack.
    let n = unsafe {
        libc::syscall(
            libc::SYS_read,
            c_long::from(ready),
            &mut byte as *mut u8,
            1usize,
        )
    };
    if n == 1 {
        let (below, above) = (c_long::from(ring) - 1, c_long::from(ring) + 1);
        if below >= 0 {
            // SAFETY: closes descriptors of this process alone.
            unsafe { libc::syscall(libc::SYS_close_range, 0 as c_long, below, 0) };
        }
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_close_range, above, c_long::from(u32::MAX), 0) };
        // SAFETY: a probe without an argument: the kernel touches no memory
        // and refuses the call, after it has taken and left the lock.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                c_long::from(ring),
                c_long::from(PROBE),
                0 as c_long,
                0 as c_long,
            )
        };
        let errno = if ret < 0 { last_errno() } else { 0 };
        exit(errno);
    }
    exit(255)
}

fn last_errno() -> c_int {
    // SAFETY: the address of this thread's errno is always valid.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above, and nobody else has it.
    unsafe { *errno }
}

fn exit(status: c_int) -> ! {
    loop {
        // SAFETY: ends the process without running any of its handlers.
        unsafe { libc::syscall(libc::SYS_exit_group, c_long::from(status)) };
    }
}

/// Blocks all signals of this thread, so that none runs a handler in the child.
fn block_signals() -> libc::sigset_t {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: fills the set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: `all` was filled; `before` has room for the old set.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    // SAFETY: pthread_sigmask with valid arguments cannot fail, so it is set.
    unsafe { before.assume_init() }
}

fn restore_signals(mask: &libc::sigset_t) {
    // SAFETY: a set that pthread_sigmask has given; the old one is not wanted.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
}
