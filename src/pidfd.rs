//! A descriptor of another process.

use std::os::fd::OwnedFd;

use rustix::process::{pidfd_getfd, pidfd_open, Pid, PidfdFlags, PidfdGetfdFlags};

use crate::error::{Error, Result};

/// A copy of a descriptor of a process, by pidfd_getfd(2).
pub(crate) fn copy_of(pid: u32, fd: i32) -> Result<OwnedFd> {
    use rustix::io::Errno;

    let gone = Error::NoSuchProcess { pid };
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Err(gone);
    };
    // EINVAL: the number of a thread.
    let process = pidfd_open(raw, PidfdFlags::empty()).map_err(|e| match e {
        Errno::SRCH | Errno::INVAL => gone,
        e => Error::os(format!("pidfd_open of process {pid}"), e),
    })?;
    pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()).map_err(|e| match e {
        Errno::BADF => Error::NoSuchDescriptor { pid, fd },
        Errno::SRCH => Error::NoSuchProcess { pid },
        Errno::PERM | Errno::ACCESS => Error::NotPermitted {
            operation: format!("copy descriptor {fd} of process {pid} (pidfd_getfd)"),
            needs: "be root, have CAP_SYS_PTRACE, or be the same user where \
                    kernel.yama.ptrace_scope is 0",
            source: e.into(),
        },
        e => Error::os(
            format!("pidfd_getfd of descriptor {fd} of process {pid}"),
            e,
        ),
    })
}
