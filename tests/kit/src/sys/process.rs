//! Processes: another user, and a child that only holds what it inherited.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::{Duration, Instant};

use super::{check, page_size, probe, Mapping};

/// The number of the calling thread.
pub(crate) fn thread_id() -> u32 {
    // SAFETY: no arguments.
    let tid = unsafe { libc::gettid() };
    tid as u32
}

/// Mounts debugfs in its usual place.
pub(crate) fn mount_debugfs() -> io::Result<()> {
    let (name, place) = (c"debugfs".as_ptr(), c"/sys/kernel/debug".as_ptr());
    // SAFETY: three constant C strings and no options.
    check(unsafe { libc::mount(name, place, name, 0, std::ptr::null()) }.into()).map(drop)
}

/// Becomes `uid`, for good: real, effective and saved.
///
/// # Errors
/// EPERM without CAP_SETUID.
pub fn set_uid(uid: u32) -> io::Result<()> {
    // SAFETY: takes numbers; glibc changes all threads together.
    check(unsafe { libc::setresuid(uid, uid, uid) }.into()).map(drop)
}

/// Gives the calling thread descriptors of its own: a copy of all.
///
/// # Errors
/// ENOMEM.
pub fn unshare_descriptors() -> io::Result<()> {
    // SAFETY: takes a number. Descriptors stay open in both tables, so nothing
    // that owns one loses it.
    check(unsafe { libc::unshare(libc::CLONE_FILES) }.into()).map(drop)
}

/// Leaves the processor to every other thread that wants it (SCHED_IDLE): the calling
/// thread alone.
///
/// # Errors
/// None that is known.
pub fn idle_priority() -> io::Result<()> {
    // SAFETY: plain data, of which zeroes are values: the one priority that there is.
    let param: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: reads `param`; 0 is the calling thread.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &param) }.into()).map(drop)
}

/// Ends the calling thread alone, also if it is the first of its process, which goes on
/// as long as it has others. Nothing is dropped.
pub fn end_thread() -> ! {
    loop {
        // SAFETY: takes a number. What the thread has on its stack stays there, and nobody
        // comes back to it.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
}

/// Interrupts this process so often by a signal that does nothing, until it is called
/// with zero.
///
/// # Errors
/// None that is known.
pub fn interrupt_every(span: Duration) -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: plain data, of which zeroes are values: calls are not restarted.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
    // SAFETY: reads `action`, whose function may be called at any time.
    check(unsafe { libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()) }.into())?;
    let span = libc::timeval {
        tv_sec: span.as_secs() as libc::time_t,
        tv_usec: span.subsec_micros().into(),
    };
    let timer = libc::itimerval {
        it_interval: span,
        it_value: span,
    };
    // SAFETY: reads `timer`.
    check(unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) }.into())
        .map(drop)
}

/// The time that processors have spent on this process, in it and in the kernel.
pub fn cpu_time() -> Duration {
    spent_on(libc::RUSAGE_SELF)
}

/// The same, on those of its children that have ended and were waited for.
pub fn cpu_time_of_children() -> Duration {
    spent_on(libc::RUSAGE_CHILDREN)
}

fn spent_on(who: libc::c_int) -> Duration {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: there is room for what it writes; it fails only where `who` is unknown.
    unsafe { libc::getrusage(who, usage.as_mut_ptr()) };
    // SAFETY: numbers, zero if nothing was written.
    let usage = unsafe { usage.assume_init() };
    let time = |of: libc::timeval| Duration::new(of.tv_sec as u64, of.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Forks a child which holds every descriptor and mapping of this process and
/// does nothing until this process ends. Returns its pid.
///
/// # Errors
/// EAGAIN at a limit of processes, ENOMEM.
pub fn fork_holder() -> io::Result<u32> {
    let parent = std::process::id();
    // SAFETY: the child calls only async-signal-safe functions and never
    // returns, so that locks held by other threads do not matter.
    match check(unsafe { libc::fork() }.into())? {
        0 => hold_until_parent_ends(parent),
        pid => Ok(pid as u32),
    }
}

/// Forks a child which holds every descriptor and mapping of this process for `life`,
/// also when this process has ended. Returns its pid.
///
/// # Errors
/// EAGAIN at a limit of processes, ENOMEM.
pub fn fork_survivor(life: Duration) -> io::Result<u32> {
    let seconds = u32::try_from(life.as_secs()).unwrap_or(u32::MAX);
    // SAFETY: the child calls only async-signal-safe functions and never
    // returns, so that locks held by other threads do not matter.
    match check(unsafe { libc::fork() }.into())? {
        0 => {
            // SAFETY: takes a number.
            unsafe { libc::sleep(seconds) };
            // SAFETY: ends this process without running the parent's destructors.
            unsafe { libc::_exit(0) }
        }
        pid => Ok(pid as u32),
    }
}

/// Runs `body` in a forked child, and says whether it came to its end there.
///
/// # Errors
/// EAGAIN at a limit of processes, ENOMEM.
///
/// # Panics
/// If this process has other threads, whose locks nobody would let go of in the child.
pub fn in_forked_child(body: impl FnOnce()) -> io::Result<bool> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    assert_eq!(threads, 1, "there are other threads");
    // SAFETY: the child has all that there is of this process.
    let pid = match check(unsafe { libc::fork() }.into())? {
        0 => {
            let ended = catch_unwind(AssertUnwindSafe(body));
            // SAFETY: ends this process without running the parent's destructors.
            unsafe { libc::_exit(ended.is_err().into()) }
        }
        pid => pid as libc::pid_t,
    };
    let mut status = 0;
    // SAFETY: writes to `status`.
    check(unsafe { libc::waitpid(pid, &mut status, 0) }.into())?;
    Ok(status == 0)
}

/// Forks a child which holds every descriptor and mapping of this process, keeps this
/// ring busy for `life`, forks one that does the same, and ends; until this process has
/// ended, of which all of them are children then.
///
/// # Errors
/// EAGAIN at a limit of processes, ENOMEM.
pub fn fork_chain(ring: BorrowedFd<'_>, life: Duration) -> io::Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }.into())?;
    // SAFETY: no function of ours is installed: nobody has to wait for a child.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let first = std::process::id();
    let page = Mapping::anonymous(page_size())?;
    // SAFETY: the child calls only async-signal-safe functions and never
    // returns, so that locks held by other threads do not matter.
    match check(unsafe { libc::fork() }.into())? {
        0 => hand_on(first, ring, &page, life),
        _ => Ok(()),
    }
}

/// Of a probe of all operations that there are, and more.
const OPS: usize = 256;
const PROBED: usize = 16 + 8 * OPS;

fn hand_on(first: u32, ring: BorrowedFd<'_>, page: &Mapping, life: Duration) -> ! {
    loop {
        let start = Instant::now();
        while start.elapsed() < life {
            page.write(&[0; PROBED]);
            let _busy_is_all_it_has_to_be = probe(ring.into(), page, OPS);
        }
        // SAFETY: takes numbers, and sends nothing.
        let gone = unsafe { libc::kill(first as libc::pid_t, 0) } != 0;
        // SAFETY: as in fork_chain(). Where it fails, this process stays.
        if gone || unsafe { libc::fork() } > 0 {
            // SAFETY: ends this process without running the parent's destructors.
            unsafe { libc::_exit(0) };
        }
    }
}

fn hold_until_parent_ends(parent: u32) -> ! {
    // SAFETY: takes numbers; the parent's end kills this process.
    let armed = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    // SAFETY: no arguments.
    let now = unsafe { libc::getppid() };
    // The parent may have ended before the signal was armed.
    if armed == 0 && now as u32 == parent {
        loop {
            // SAFETY: no arguments.
            unsafe { libc::pause() };
        }
    }
    // SAFETY: ends this process without running the parent's destructors.
    unsafe { libc::_exit(1) }
}
