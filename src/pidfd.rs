//! Other processes, and descriptors of theirs.

use std::os::fd::OwnedFd;

use rustix::fs::{open, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{pidfd_getfd, pidfd_open, Pid, PidfdFlags, PidfdGetfdFlags};

use crate::error::{Error, Permission, Result};
use crate::tasks::process_of;

/// A process by its number in our pid namespace.
///
/// # Errors
///
/// [`Error::NoSuchProcess`], and [`Error::IsAThread`] for the number of a thread.
pub(crate) fn open_process(pid: u32) -> Result<OwnedFd> {
    open_with(pid, PidfdFlags::empty()).map_err(|error| match error {
        Error::NoSuchProcess { pid: tid } => match process_of(tid) {
            Ok(pid) if pid != tid => Error::IsAThread { tid, pid },
            _ => error,
        },
        error => error,
    })
}

/// Whether there is such a process, also if /proc does not show it.
pub(crate) fn exists(pid: u32) -> bool {
    open_with(pid, PidfdFlags::empty()).is_ok()
}

fn open_with(pid: u32, flags: PidfdFlags) -> Result<OwnedFd> {
    let none = Error::NoSuchProcess { pid };
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Err(none);
    };
    pidfd_open(raw, flags).map_err(|e| match e {
        // The number of a thread is EINVAL, and ENOENT on 6.18.
        Errno::SRCH | Errno::INVAL | Errno::NOENT => none,
        e => Error::os(format!("pidfd_open of process {pid}"), e),
    })
}

/// A copy of a descriptor of a process, by pidfd_getfd(2).
pub(crate) fn copy_of(pid: u32, fd: i32) -> Result<OwnedFd> {
    copy(open_process(pid)?, pid, fd)
}

/// The same for a thread with its own descriptor table: PIDFD_THREAD, Linux 6.9.
pub(crate) fn copy_of_thread(tid: u32, fd: i32) -> Result<OwnedFd> {
    let thread = PidfdFlags::from_bits_retain(OFlags::EXCL.bits());
    copy(open_with(tid, thread)?, tid, fd)
}

/// The file that a descriptor of a thread is of, to be looked at and no more (`O_PATH`).
pub(crate) fn path_of_thread(pid: u32, tid: u32, fd: i32) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/task/{tid}/fd/{fd}");
    open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|e| match e {
        Errno::NOENT => Error::NoSuchDescriptor { pid, fd },
        Errno::PERM | Errno::ACCESS => Error::NotPermitted {
            operation: format!("look at {path}"),
            needs: Permission::ReadProc,
            source: e.into(),
        },
        e => Error::os(format!("look at {path}"), e),
    })
}

fn copy(process: OwnedFd, pid: u32, fd: i32) -> Result<OwnedFd> {
    if fd < 0 {
        return Err(Error::NoSuchDescriptor { pid, fd });
    }
    pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()).map_err(|e| match e {
        Errno::BADF => Error::NoSuchDescriptor { pid, fd },
        Errno::SRCH => Error::NoSuchProcess { pid },
        Errno::PERM | Errno::ACCESS => Error::NotPermitted {
            operation: format!("copy descriptor {fd} of process {pid} (pidfd_getfd)"),
            needs: Permission::CopyDescriptor,
            source: e.into(),
        },
        e => Error::os(
            format!("pidfd_getfd of descriptor {fd} of process {pid}"),
            e,
        ),
    })
}
