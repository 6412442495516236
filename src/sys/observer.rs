//! A process that makes one io_uring_register(2) call in our place, and may be
//! abandoned when that call does not come back.
//!
//! The call takes `uring_lock` without a time limit, and a task that waits
//! for it does not even hear SIGKILL. So it is made by a separate process,
//! whose only descriptor is the ring's. It shares our memory: a copy as by
//! fork(2) would copy every page that we have registered ourselves. All it
//! runs is [`observe`], on a separate stack.

use std::ffi::{c_int, c_long, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::io_uring::{io_uring_register, IoringRegisterOp};
use rustix::process::{pidfd_send_signal, waitid, Signal, WaitId, WaitIdOptions};

use super::signals::Blocked;

const STACK: usize = 64 * 1024;

/// Observers that were given up. They end when the lock is let go, and are
/// collected when the next one is started.
static ABANDONED: Mutex<Vec<Child>> = Mutex::new(Vec::new());

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

/// An observer that waits for its start signal.
pub(crate) struct Observer {
    pid: u32,
    // Dropped first: a child that was never started ends when this closes.
    start: OwnedFd,
    child: Option<Child>,
}

/// The process, and the stack that it runs on.
struct Child {
    pid: u32,
    process: OwnedFd,
    _stack: Stack,
}

/// The task of the child, at the low end of its stack.
#[repr(C)]
struct Task {
    ready: c_int,
    ring: c_int,
}

impl Observer {
    /// Makes the process; it does nothing before [`Observer::run`].
    pub(crate) fn new(ring: BorrowedFd<'_>) -> io::Result<Self> {
        collect_abandoned();
        let (ready, start) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let stack = Stack::new(Task {
            ready: ready.as_raw_fd(),
            ring: ring.as_raw_fd(),
        })?;
        let mut process: c_int = -1;
        // Without an exit signal the program around us sees no SIGCHLD, and
        // its wait(2) calls do not meet this child.
        let flags = libc::CLONE_VM | libc::CLONE_PIDFD;
        // None is to run a handler in the child.
        let blocked = Blocked::new();
        // SAFETY: the child runs `observe` on a stack that nobody else has and
        // that is kept until the child has ended, with a `Task` that lies in
        // it. It shares our memory but touches nothing of it beyond that
        // stack. The fifth argument is where CLONE_PIDFD stores its result.
        let pid = unsafe {
            libc::clone(
                observe,
                stack.top(),
                flags,
                stack.bottom(),
                ptr::from_mut(&mut process),
            )
        };
        let error = io::Error::last_os_error();
        drop(blocked);
        let Ok(pid @ 1..) = u32::try_from(pid) else {
            return Err(error);
        };
        // SAFETY: CLONE_PIDFD has stored a new descriptor that is ours.
        let process = unsafe { OwnedFd::from_raw_fd(process) };
        Ok(Self {
            pid,
            start,
            child: Some(Child {
                pid,
                process,
                _stack: stack,
            }),
        })
    }

    /// Its number in our pid namespace.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it make its call, and waits for that at most so long.
    pub(crate) fn run(mut self, limit: Duration) -> io::Result<Outcome> {
        rustix::io::retry_on_intr(|| rustix::io::write(&self.start, &[1]))?;
        let Some(child) = self.child.take() else {
            return Ok(Outcome::Killed);
        };
        if child.ended(limit) {
            return Ok(match child.collect() {
                Some(errno) => Outcome::Returned(errno),
                None => Outcome::Killed,
            });
        }
        child.give_up();
        Ok(Outcome::TimedOut)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            child.give_up();
        }
    }
}

impl Child {
    fn ended(&self, limit: Duration) -> bool {
        // A limit beyond any clock is a day.
        let deadline = Instant::now() + limit.min(Duration::from_secs(86400));
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).ok();
            let mut fds = [PollFd::new(&self.process, PollFlags::IN)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(Errno::INTR) => {}
                // Not told: it is treated as still there.
                Err(_) => return false,
            }
        }
    }

    /// Ends it as soon as it can be ended, and waits for that only a moment.
    fn give_up(self) {
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
        if self.ended(Duration::from_millis(20)) {
            self.collect();
        } else {
            // Its stack stays, for it may still run on it.
            let mut list = ABANDONED.lock().unwrap_or_else(PoisonError::into_inner);
            list.push(self);
        }
    }

    /// The exit status of a process that has ended, `None` if a signal ended it.
    fn collect(&self) -> Option<i32> {
        // __WALL: a child without an exit signal is not met otherwise.
        let options = WaitIdOptions::EXITED
            | WaitIdOptions::NOHANG
            | WaitIdOptions::from_bits_retain(libc::__WALL as u32);
        let status = waitid(WaitId::PidFd(self.process.as_fd()), options);
        status.ok().flatten()?.exit_status()
    }
}

fn collect_abandoned() {
    let mut list = ABANDONED.lock().unwrap_or_else(PoisonError::into_inner);
    list.retain(|child| {
        let over = child.ended(Duration::ZERO);
        if over {
            child.collect();
        }
        !over
    });
}

/// The numbers of observers that still wait, in our pid namespace.
pub(crate) fn abandoned() -> Vec<u32> {
    collect_abandoned();
    let list = ABANDONED.lock().unwrap_or_else(PoisonError::into_inner);
    list.iter().map(|child| child.pid).collect()
}

/// Memory for the child to run on. Mapped through libc, so that an address
/// sanitizer learns that what an earlier child left there is no more.
struct Stack {
    start: NonNull<c_void>,
}

// SAFETY: the mapping belongs to this value and is the same in every thread.
unsafe impl Send for Stack {}

impl Stack {
    fn new(task: Task) -> io::Result<Self> {
        // SAFETY: no address is asked for, so no mapping of ours is replaced.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                STACK,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: freshly mapped, writable, page aligned, ours, large enough.
        unsafe { start.cast::<Task>().write(task) };
        Ok(Self { start })
    }

    fn bottom(&self) -> *mut c_void {
        self.start.as_ptr()
    }

    /// Where a stack that grows down begins; aligned as a page is.
    fn top(&self) -> *mut c_void {
        // SAFETY: the end of the mapping, which `add` may reach.
        unsafe { self.start.as_ptr().byte_add(STACK) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the range that was mapped; the child has ended (see `Child`).
        let _ = unsafe { libc::munmap(self.start.as_ptr(), STACK) };
    }
}

/// The child: waits for its start signal, lets go of everything but the ring,
/// makes the call and exits with its errno.
///
/// It shares the thread-local storage of its parent, `errno` too: the calls
/// that may fail go through rustix, which makes them without libc.
extern "C" fn observe(task: *mut c_void) -> c_int {
    // SAFETY: `Observer::new` passes the `Task` at the bottom of our stack,
    // which nobody writes any more.
    let task = unsafe { task.cast::<Task>().read() };
    // SAFETY: a descriptor that our copy of the table has; it is not closed
    // before its last use.
    let ready = unsafe { BorrowedFd::borrow_raw(task.ready) };
    // SAFETY: as above.
    let ring = unsafe { BorrowedFd::borrow_raw(task.ring) };
    // Until only our parent has the other end, its end would not be seen.
    close_all_but(task.ready, task.ring);
    let mut byte = [0u8; 1];
    let started = rustix::io::retry_on_intr(|| rustix::io::read(ready, &mut byte));
    let status = match started {
        Ok(1) => {
            close_all_but(task.ring, task.ring);
            // SAFETY: a probe without an argument: the kernel touches no memory
            // and refuses the call, after it has taken and left the lock.
            let call =
                unsafe { io_uring_register(ring, IoringRegisterOp::RegisterProbe, ptr::null(), 0) };
            call.err().map_or(0, Errno::raw_os_error)
        }
        _ => 255,
    };
    loop {
        // SAFETY: ends this process without running any handler of our parent.
        unsafe { libc::syscall(libc::SYS_exit_group, c_long::from(status)) };
    }
}

/// Closes what this process has from our parent, but two.
fn close_all_but(one: c_int, other: c_int) {
    let (low, high) = (one.min(other), one.max(other));
    close_between(0, low);
    close_between(low + 1, high);
    close_between(high + 1, c_int::MAX);
}

/// Closes the descriptors from `first` up to, but not including, `end`.
fn close_between(first: c_int, end: c_int) {
    if first < end {
        // SAFETY: closes descriptors of this process alone (no CLONE_FILES).
        // It cannot fail with this range, so it leaves errno alone.
        unsafe {
            libc::syscall(
                libc::SYS_close_range,
                c_long::from(first),
                c_long::from(end - 1),
                0,
            )
        };
    }
}
