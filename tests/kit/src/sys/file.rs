//! Descriptors and epoll sets.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::{check, Mapping};

/// fcntl(2), F_GETFL.
pub(crate) fn file_flags(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: takes numbers.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    Ok(check(flags.into())? as u32)
}

/// fcntl(2), F_SETFL: sets or clears O_NONBLOCK.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let flags = file_flags(fd)? as i32 & !libc::O_NONBLOCK;
    let flags = if on { flags | libc::O_NONBLOCK } else { flags };
    // SAFETY: takes numbers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) }.into()).map(drop)
}

/// fcntl(2), F_DUPFD_CLOEXEC, of a number that other threads may close.
pub(crate) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers.
    let fd = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    Ok(owned(check(fd.into())? as RawFd))
}

/// dup3(2): the number of `fd` becomes another descriptor of the file of `by`.
pub(crate) fn replace(fd: &OwnedFd, by: BorrowedFd<'_>) -> io::Result<()> {
    let (from, to) = (by.as_raw_fd(), fd.as_raw_fd());
    // SAFETY: takes numbers; `fd` stays open, and its owner's.
    check(unsafe { libc::dup3(from, to, libc::O_CLOEXEC) }.into()).map(drop)
}

/// pipe2(2): the end to read from, and that to write to.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds: [RawFd; 2] = [-1; 2];
    // SAFETY: the kernel writes two numbers to the array.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) }.into())?;
    Ok((owned(fds[0]), owned(fds[1])))
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the call just returned it: open, and owned by nobody else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// timerfd_create(2).
pub fn timerfd() -> io::Result<OwnedFd> {
    // SAFETY: takes numbers.
    let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC) };
    Ok(owned(check(fd.into())? as RawFd))
}

/// signalfd(2), of no signal.
pub fn signalfd() -> io::Result<OwnedFd> {
    // SAFETY: for this struct all zeroes is a value.
    let none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: reads one set of signals, ours for the call.
    let fd = unsafe { libc::signalfd(-1, &none, libc::SFD_CLOEXEC) };
    Ok(owned(check(fd.into())? as RawFd))
}

/// userfaultfd(2), of no memory.
pub fn userfaultfd_of_nothing() -> io::Result<OwnedFd> {
    super::mem::userfaultfd().map(OwnedFd::from)
}

/// poll(2): whether all other ends are closed, within `limit`.
pub(crate) fn hung_up(fd: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    let mut pollfd = libc::pollfd {
        fd: fd.as_raw_fd(),
        // A hang-up is always reported.
        events: 0,
        revents: 0,
    };
    let limit = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one pollfd, ours for the call.
    check(unsafe { libc::poll(&mut pollfd, 1, limit) }.into())?;
    Ok(pollfd.revents & libc::POLLHUP != 0)
}

/// epoll_create1(2).
pub(crate) fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: takes a number.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    Ok(owned(check(fd.into())? as RawFd))
}

/// epoll_ctl(2).
pub(crate) fn epoll_ctl(
    set: BorrowedFd<'_>,
    op: i32,
    fd: RawFd,
    events: u32,
    data: u64,
) -> io::Result<()> {
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: the kernel reads one epoll_event; a bad number is refused.
    check(unsafe { libc::epoll_ctl(set.as_raw_fd(), op, fd, &mut event) }.into()).map(drop)
}

/// epoll_wait(2) for one event, which goes to the start of `to`, without a wait.
pub(crate) fn epoll_wait_into(set: BorrowedFd<'_>, to: &Mapping) -> io::Result<()> {
    const { assert!(size_of::<libc::epoll_event>() <= 4096) };
    let event = to.addr() as *mut libc::epoll_event;
    // SAFETY: the kernel writes one event to memory that is ours, and of which
    // no reference exists.
    check(unsafe { libc::epoll_wait(set.as_raw_fd(), event, 1, 0) }.into()).map(drop)
}
