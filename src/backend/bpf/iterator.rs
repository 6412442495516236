//! Reads BPF iterators.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::error::{Contention, Error, Missed, Result};
use crate::sys::link;

/// A new iterator of a link.
pub(crate) fn open(link: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    link::new_iterator(link).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
}

/// Reads from an iterator once; interrupted reads go on.
pub(crate) fn read(iterator: &OwnedFd, room: &mut [u8]) -> Result<usize, Errno> {
    rustix::io::retry_on_intr(|| rustix::io::read(iterator, &mut *room))
}

/// The meaning of an errno of an iterator: for the native ones EDEADLK is a lock
/// that is taken, and ENXIO an object that is gone.
pub(crate) fn missed(errno: Errno, gone: impl FnOnce() -> Error) -> Missed {
    match errno {
        Errno::DEADLK => Missed::Busy(Contention::LockHeldUnseen),
        Errno::NXIO => Missed::Failed(gone()),
        errno => Missed::Failed(Error::os("read of a BPF iterator", errno)),
    }
}

/// Why a walk ended early.
pub(crate) enum Ended {
    /// The kernel ended it.
    By(Errno),
    /// It is not one of ours, or its answer cannot be read.
    Failed(Error),
}

/// One walk: a new iterator, read to its end, or until its program has had the
/// kernel stop because it is done. Our programs write to maps and print nothing,
/// so a read that gives bytes is an error.
pub(crate) fn walk(link: BorrowedFd<'_>, is_done: impl Fn() -> Result<bool>) -> Result<(), Ended> {
    let iterator = open(link).map_err(Ended::By)?;
    let mut buf = [0u8; 64];
    loop {
        match read(&iterator, &mut buf) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                return Err(Ended::Failed(Error::malformed(
                    "a BPF iterator",
                    format!("{n} bytes of output where there should be none"),
                )))
            }
            // The program has returned 1, or a million objects were met without
            // output, and the next read goes on (bpf_seq_read, kernel/bpf/bpf_iter.c).
            Err(Errno::AGAIN) => {
                if is_done().map_err(Ended::Failed)? {
                    return Ok(());
                }
            }
            Err(errno) => return Err(Ended::By(errno)),
        }
    }
}

/// A walk over tasks, which no lock and no end of an object can stop.
pub(crate) fn walk_tasks(link: BorrowedFd<'_>) -> Result<()> {
    walk(link, || Ok(false)).map_err(|ended| match ended {
        Ended::By(errno) => Error::os("read of a task iterator", errno),
        Ended::Failed(error) => error,
    })
}
