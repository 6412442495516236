//! A process that makes io_uring_register(2) calls in our place, and may be
//! abandoned when such a call does not come back.
//!
//! The call takes `uring_lock` without a time limit, and a task that waits
//! for it does not even hear SIGKILL. So it is made by a separate process,
//! whose only descriptor is the ring's, for as long as the call takes. (No ring
//! can be sent through a socket, so it is handed over by [`seccomp`].) It shares
//! our memory: a copy as by fork(2) would copy every page that we have
//! registered ourselves. All it runs is [`observe`], on a separate stack.
//!
//! It ends when its [`Observer`] is dropped, or when the thread that started it
//! or our process ends. It cannot make another call, whatever this process does
//! to it or to its own rights meanwhile.

use std::ffi::{c_int, c_long, c_void};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::io_uring::{io_uring_register, IoringRegisterOp};
use rustix::process::{
    chdir, getpid, getppid, pidfd_send_signal, set_parent_process_death_signal, waitid, Pid,
    Signal, WaitId, WaitIdOptions,
};
use rustix::thread::{futex, set_name, set_no_new_privs};

use super::fork;
use super::seccomp::{self, Listener};
use super::signals::Blocked;

const STACK: usize = 64 * 1024;
/// For a process to start: only a debugger makes it wait.
const START: Duration = Duration::from_secs(10);

/// Observers that were given up. They end when the lock is let go, and are
/// collected when the next one is started.
static ABANDONED: Mutex<Vec<Child>> = Mutex::new(Vec::new());
/// The numbers of all observers that were not collected.
static PIDS: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// How a call ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It came back with this errno: the tracepoint has been passed.
    Returned(i32),
    /// It did not come back in time; the observer has to be dropped.
    TimedOut,
    /// The observer is no more.
    Ended,
}

/// An observer that waits for a ring.
pub(crate) struct Observer {
    // Dropped first: the process ends when nobody has it.
    listener: Option<Listener>,
    /// Its present request for a ring, if that was received.
    asks: Option<u64>,
    child: Option<Child>,
    /// Of the process that it is a child of.
    generation: u64,
}

/// The process, and the stack that it runs on.
struct Child {
    pid: u32,
    process: OwnedFd,
    stack: Stack,
    /// Of the process that it is a child of.
    generation: u64,
}

/// The data at the low end of the stack.
#[repr(C)]
struct Task {
    parent: Pid,
    /// 0 until it is ready: the listener's number and one, or a negative errno.
    ready: AtomicU32,
}

impl Observer {
    /// Starts the process; it makes no call before [`Observer::call`].
    pub(crate) fn new() -> io::Result<Self> {
        collect_abandoned();
        let generation = fork::generation()?;
        let child = Child::new(generation)?;
        let mut observer = Self {
            listener: None,
            asks: None,
            child: Some(child),
            generation,
        };
        let deadline = Instant::now() + START;
        let told = loop {
            let child = observer.child.as_ref().ok_or(io::ErrorKind::NotFound)?;
            match child.stack.task().ready.load(Ordering::Acquire) as i32 {
                0 => child.wait_a_moment(deadline)?,
                told => break told,
            }
        };
        if told < 0 {
            return Err(io::Error::from_raw_os_error(-told));
        }
        // SAFETY: the process had our descriptors until it said so, and the listener
        // was made for us.
        observer.listener = Some(unsafe { Listener::from_raw(told - 1) });
        Ok(observer)
    }

    /// Its number in our pid namespace.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, |child| child.pid)
    }

    /// False for one that has ended, and in a child of fork(2).
    pub(crate) fn is_there(&self) -> bool {
        let ended = |child: &Child| child.ended(Duration::ZERO);
        self.is_ours() && self.child.as_ref().is_some_and(|child| !ended(child))
    }

    fn is_ours(&self) -> bool {
        fork::generation().is_ok_and(|now| now == self.generation)
    }

    /// Lets it make its call on this ring, and waits for that at most so long.
    ///
    /// # Errors
    ///
    /// It may still be about to make the call, and has to be dropped.
    pub(crate) fn call(&mut self, ring: BorrowedFd<'_>, limit: Duration) -> io::Result<Outcome> {
        let deadline = deadline(limit);
        let Some(listener) = &self.listener else {
            return Ok(Outcome::Ended);
        };
        // What it asks anew has a new number, so that this is never an answer to an
        // earlier call.
        loop {
            let id = match self.asks.take() {
                Some(id) => id,
                None => match listen(listener, deadline)? {
                    Heard::Asked(asked) => asked.id,
                    Heard::Not(outcome) => return Ok(outcome),
                },
            };
            match listener.give(id, ring) {
                Ok(()) => break,
                // Not for ever, wherever each attempt is interrupted.
                Err(_) if Instant::now() >= deadline => return Ok(Outcome::TimedOut),
                Err(Errno::NOENT | Errno::SRCH | Errno::INPROGRESS | Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(match listen(listener, deadline)? {
            Heard::Asked(asked) => {
                self.asks = Some(asked.id);
                Outcome::Returned(asked.number as i32)
            }
            Heard::Not(outcome) => outcome,
        })
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.listener = None;
        // A child of fork(2) has copies of what is its parent's.
        if !self.is_ours() {
            return;
        }
        if let Some(child) = self.child.take() {
            child.give_up();
        }
    }
}

enum Heard {
    Asked(seccomp::Asked),
    Not(Outcome),
}

/// The next request of the process.
fn listen(listener: &Listener, deadline: Instant) -> io::Result<Heard> {
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN)];
        match poll(&mut fds, Some(&left(deadline))) {
            Ok(0) => return Ok(Heard::Not(Outcome::TimedOut)),
            Ok(_) if fds[0].revents().contains(PollFlags::IN) => {}
            Ok(_) => return Ok(Heard::Not(Outcome::Ended)),
            Err(Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        }
        match listener.receive() {
            Ok(asked) => return Ok(Heard::Asked(asked)),
            Err(Errno::NOENT | Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn deadline(limit: Duration) -> Instant {
    // A limit beyond any clock is a day.
    Instant::now() + limit.min(Duration::from_secs(86400))
}

fn left(deadline: Instant) -> Timespec {
    let left = deadline.saturating_duration_since(Instant::now());
    Timespec::try_from(left).unwrap_or_default()
}

impl Child {
    fn new(generation: u64) -> io::Result<Self> {
        let stack = Stack::new(Task {
            parent: getpid(),
            ready: AtomicU32::new(0),
        })?;
        let mut process: c_int = -1;
        // Without an exit signal the program around us sees no SIGCHLD, and its
        // wait(2) calls do not meet this child. It has our descriptors until it has
        // made the listener among them.
        let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_PIDFD;
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
        PIDS.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(pid);
        // SAFETY: CLONE_PIDFD has stored a new descriptor that is ours.
        let process = unsafe { OwnedFd::from_raw_fd(process) };
        Ok(Self {
            pid,
            process,
            stack,
            generation,
        })
    }

    /// Waits for it to start, and looks now and then whether it still can.
    fn wait_a_moment(&self, deadline: Instant) -> io::Result<()> {
        if Instant::now() > deadline {
            return Err(Errno::TIMEDOUT.into());
        }
        let moment = Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        let ready = &self.stack.task().ready;
        match futex::wait(ready, futex::Flags::PRIVATE, 0, Some(&moment)) {
            Err(Errno::TIMEDOUT) if self.ended(Duration::ZERO) => Err(Errno::CHILD.into()),
            Ok(()) | Err(Errno::TIMEDOUT | Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn ended(&self, limit: Duration) -> bool {
        let deadline = deadline(limit);
        loop {
            let mut fds = [PollFd::new(&self.process, PollFlags::IN)];
            match poll(&mut fds, Some(&left(deadline))) {
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

    /// Takes note of a process that has ended, so that the kernel can forget it.
    fn collect(&self) {
        // __WALL: a child without an exit signal is not met otherwise.
        let options = WaitIdOptions::EXITED
            | WaitIdOptions::NOHANG
            | WaitIdOptions::from_bits_retain(libc::__WALL as u32);
        let _ = waitid(WaitId::PidFd(self.process.as_fd()), options);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // In a child of fork(2) another thread may have had the lock.
        if !fork::generation().is_ok_and(|now| now == self.generation) {
            return;
        }
        let mut pids = PIDS.lock().unwrap_or_else(PoisonError::into_inner);
        pids.retain(|&pid| pid != self.pid);
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

/// The numbers of this process's observers, in our pid namespace.
pub(crate) fn pids() -> Vec<u32> {
    collect_abandoned();
    let pids = PIDS.lock().unwrap_or_else(PoisonError::into_inner);
    pids.clone()
}

/// Memory for the child to run on. Mapped through libc, so that an address
/// sanitizer learns that what an earlier child left there is no more.
struct Stack {
    start: NonNull<c_void>,
}

// SAFETY: the mapping belongs to this value and is the same in every thread.
unsafe impl Send for Stack {}
// SAFETY: all that is reached through `&Stack` is a `Task`, whose one part that changes
// is atomic.
unsafe impl Sync for Stack {}

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

    fn task(&self) -> &Task {
        // SAFETY: written by `new`, and the stack does not come down to it.
        unsafe { self.start.cast::<Task>().as_ref() }
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
        // SAFETY: the range that was mapped; the child has ended (see `Child`),
        // or this is a copy that fork(2) has made.
        let _ = unsafe { libc::munmap(self.start.as_ptr(), STACK) };
    }
}

/// The child: tells how to ask it, and makes one call after the other.
///
/// It shares the thread-local storage of the thread that made it, `errno` too, and
/// that thread may be gone by the time: the calls go through rustix, which makes them
/// without libc, but for those that do not fail or are made while that thread waits.
extern "C" fn observe(task: *mut c_void) -> c_int {
    // SAFETY: `Child::new` passes the `Task` at the bottom of our stack, which is there
    // for as long as we are.
    let task = unsafe { &*task.cast::<Task>().cast_const() };
    let told = match get_ready(task.parent) {
        Ok(listener) => listener + 1,
        Err(errno) => -errno.raw_os_error(),
    };
    task.ready.store(told as u32, Ordering::Release);
    let _ = futex::wake(&task.ready, futex::Flags::PRIVATE, 1);
    if told > 0 {
        serve();
    }
    loop {
        // SAFETY: ends this process without running any handler of our parent.
        unsafe { libc::syscall(libc::SYS_exit_group, 0 as c_long) };
    }
}

/// Lets go of all that the parent has, but its memory: the number that the listener
/// has there.
fn get_ready(parent: Pid) -> Result<c_int, Errno> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before that.
    if getppid() != Some(parent) {
        return Err(Errno::SRCH);
    }
    set_name(c"uring-observer")?;
    // Else the file system that it stands on could not be unmounted.
    chdir(c"/")?;
    set_no_new_privs(true)?;
    let listener = seccomp::ask_from_now_on()?;
    // SAFETY: from here on we have descriptors of our own, which is none.
    let closed = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            0 as c_long,
            c_long::from(c_int::MAX),
            c_long::from(libc::CLOSE_RANGE_UNSHARE),
        )
    };
    if closed == 0 {
        return Ok(listener);
    }
    let error = io::Error::last_os_error();
    // SAFETY: the listener, in the table that is still our parent's, which does not
    // know of it yet.
    unsafe { libc::close(listener) };
    Err(Errno::from_io_error(&error).unwrap_or(Errno::NOMEM))
}

/// Makes the call on each ring that is handed over.
fn serve() {
    let mut errno = 0;
    loop {
        // SAFETY: no descriptor, but not -1 either; the kernel is not going to see it.
        let answer = unsafe { BorrowedFd::borrow_raw(errno) };
        // Answers, and waits for a ring (see `seccomp`).
        let Ok(ring) = rustix::io::dup(answer) else {
            return;
        };
        // SAFETY: a probe without an argument: the kernel touches no memory and
        // refuses the call, after it has taken and left the lock.
        let call = unsafe {
            io_uring_register(
                ring.as_fd(),
                IoringRegisterOp::RegisterProbe,
                ptr::null(),
                0,
            )
        };
        errno = call.err().map_or(0, Errno::raw_os_error);
        let ring = ring.into_raw_fd();
        // A signal has kept our parent from handing one over (see `Listener::give`).
        if errno == libc::EBADF {
            continue;
        }
        // SAFETY: ours, and not used after this. (What drops an `OwnedFd` is libc.)
        unsafe { rustix::io::close(ring) };
    }
}
