//! Copies a descriptor of a ring or an epoll set from a process that holds it.

use std::os::fd::{AsFd, OwnedFd};

use crate::error::Error;
use crate::locator::{link_of, Kind, Locator, EPOLL};
use crate::pidfd;
use crate::ring::Via;
use crate::sys::kcmp;

/// Why no descriptor of a ring could be copied.
#[derive(Debug)]
pub(crate) enum NoCopy {
    /// The caller lacks the rights, or room for another descriptor.
    Refused(Error),
    /// A thread with descriptors of its own may have it.
    OutOfReach,
    /// There were some, and they are closed.
    Gone,
    /// There never was one.
    None,
}

/// A descriptor of it, for as long as it takes to use it.
pub(crate) fn copy(locator: &Locator) -> Result<OwnedFd, NoCopy> {
    let mut found = false;
    let mut out_of_reach = false;
    let mut refused = None;
    for place in &locator.places {
        let Via::Descriptor(fd) = place.via else {
            continue;
        };
        found = true;
        // Of an epoll set a copy does not say which one it is. That of the leader serves
        // if they share it, also before Linux 6.9.
        let of_thread = locator.kind == Kind::Epoll
            && place.tid != place.pid
            && !kcmp::descriptors(place.tid, place.pid).is_ok_and(|order| order.is_eq());
        let mut copy = match of_thread {
            true => pidfd::copy_of_thread(place.tid, fd),
            false => pidfd::copy_of(place.pid, fd),
        };
        out_of_reach |= of_thread && matches!(copy, Err(Error::NoSuchProcess { .. }));
        // A thread may have a table of its own, in which the number of
        // another file, or of none, of the leader is the ring's.
        let is_elsewhere = match &copy {
            Ok(copy) => !is_of(locator, copy),
            // An ended leader has none at all.
            Err(error) => matches!(
                error,
                Error::NoSuchDescriptor { .. } | Error::NoSuchProcess { .. }
            ),
        };
        if is_elsewhere && !of_thread && place.tid != place.pid {
            copy = pidfd::copy_of_thread(place.tid, fd);
            out_of_reach |= matches!(copy, Err(Error::NoSuchProcess { .. }));
        }
        match copy {
            Ok(copy) if is_of(locator, &copy) => return Ok(copy),
            Ok(_) | Err(Error::NoSuchDescriptor { .. } | Error::NoSuchProcess { .. }) => {}
            // Says something of us (EPERM, EMFILE), of the ring nothing.
            Err(error) => refused = Some(error),
        }
    }
    Err(match refused {
        Some(error) => NoCopy::Refused(error),
        None if out_of_reach => NoCopy::OutOfReach,
        None if found => NoCopy::Gone,
        None => NoCopy::None,
    })
}

/// True as far as the descriptor by itself tells: of an epoll set only that
/// it is one.
fn is_of(locator: &Locator, copy: &OwnedFd) -> bool {
    let same = rustix::fs::fstat(copy).is_ok_and(|s| s.st_ino == locator.inode);
    let is_epoll = || link_of(copy.as_fd()).is_ok_and(|link| link == EPOLL);
    same && (locator.kind == Kind::Ring || is_epoll())
}
