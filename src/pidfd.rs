//! Other processes, and descriptors of theirs.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::{pidfd_getfd, pidfd_open, Pid, PidfdFlags, PidfdGetfdFlags};

use crate::error::{Error, Permission, Result};

/// A process by its number in our pid namespace.
pub(crate) fn open(pid: u32) -> Result<OwnedFd> {
    open_with(pid, PidfdFlags::empty())
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
    copy(open(pid)?, pid, fd)
}

/// The same for a thread with its own descriptor table: PIDFD_THREAD, Linux 6.9.
pub(crate) fn copy_of_thread(tid: u32, fd: i32) -> Result<OwnedFd> {
    let thread = PidfdFlags::from_bits_retain(rustix::fs::OFlags::EXCL.bits());
    copy(open_with(tid, thread)?, tid, fd)
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
