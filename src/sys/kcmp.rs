//! Whether two tasks share a file, or their descriptors: kcmp(2), Linux 3.5 with
//! `CONFIG_KCMP`. It takes ptrace rights over both (`PTRACE_MODE_READ_REALCREDS`).

use std::cmp::Ordering;
use std::ffi::{c_int, c_long, c_ulong};
use std::io;
use std::os::fd::RawFd;

/// A descriptor of a task, by the number of that in our pid namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Of {
    pub(crate) tid: u32,
    pub(crate) fd: RawFd,
}

/// include/uapi/linux/kcmp.h
const FILE: c_int = 0;
const FILES: c_int = 2;

/// Puts two open files in the kernel's order, which stays the same until it is booted
/// again: equal only for the same file.
pub(crate) fn file(a: Of, b: Of) -> io::Result<Ordering> {
    kcmp([a.tid, b.tid], FILE, [a.fd, b.fd])
}

/// Puts the tables of descriptors of two tasks in such an order: equal only if they share
/// one, and for two that have none any more.
pub(crate) fn descriptors(a: u32, b: u32) -> io::Result<Ordering> {
    kcmp([a, b], FILES, [0, 0])
}

fn kcmp(tids: [u32; 2], what: c_int, fds: [RawFd; 2]) -> io::Result<Ordering> {
    let number = |fd: RawFd| c_ulong::try_from(fd).map_err(|_| io::ErrorKind::InvalidInput);
    let tids = tids.map(c_long::from);
    let (first, second) = (number(fds[0])?, number(fds[1])?);
    // SAFETY: takes five numbers, and no memory of ours is looked at.
    match unsafe { libc::syscall(libc::SYS_kcmp, tids[0], tids[1], what, first, second) } {
        0 => Ok(Ordering::Equal),
        1 => Ok(Ordering::Less),
        2 => Ok(Ordering::Greater),
        // 3: not equal, without an order, which no kernel says of these.
        -1 => Err(io::Error::last_os_error()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
