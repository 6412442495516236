//! Attaches programs to the iterators of a patched kernel.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::backend::bpf::descriptor::{self, NoCopy};
use crate::backend::bpf::program::Programs;
use crate::backend::select::NotOpened;
use crate::choice::Reason;
use crate::error::Error;
use crate::locator::Locator;
use crate::ring::Via;
use crate::sys::link::link_fd;

/// A link to the ring or epoll set behind a descriptor, which it does not keep.
pub(crate) fn link(
    programs: &Programs,
    fd: BorrowedFd<'_>,
    locator: &Locator,
) -> Result<OwnedFd, NotOpened> {
    attach(programs, fd).map_err(|errno| match errno {
        Errno::NXIO => NotOpened::Failed(locator.gone()),
        errno => refusal(errno),
    })
}

/// The same, with the kernel's own word for what went wrong.
pub(crate) fn attach(programs: &Programs, fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let errno_of = |e: io::Error| Errno::from_io_error(&e).unwrap_or(Errno::IO);
    let program = programs.object.program_fd(programs.names[0]);
    program
        .and_then(|program| link_fd(program, fd))
        .map_err(errno_of)
}

/// The meaning of a refused attach: the backend cannot serve, or the
/// kernel or the caller was short of something.
pub(crate) fn refusal(errno: Errno) -> NotOpened {
    match errno {
        Errno::PERM | Errno::ACCESS => NotOpened::Refused(Reason::NotPermitted(errno.into())),
        Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::AGAIN => {
            NotOpened::Failed(Error::os("attach a native iterator", errno))
        }
        errno => NotOpened::Refused(Reason::LinkRefused(errno.into())),
    }
}

/// A descriptor to attach by; the link does not keep it.
pub(crate) fn descriptor(locator: &Locator) -> Result<OwnedFd, NotOpened> {
    let has_other_ways = locator
        .places
        .iter()
        .any(|place| !matches!(place.via, Via::Descriptor(_)));
    let why = match descriptor::copy(locator) {
        Ok(copy) => return Ok(copy),
        // Short of descriptors, as the other backends would be.
        Err(NoCopy::Refused(Error::Os { operation, source }))
            if matches!(
                Errno::from_io_error(&source),
                Some(Errno::MFILE | Errno::NFILE)
            ) =>
        {
            return Err(NotOpened::Failed(Error::os(operation, source)));
        }
        Err(NoCopy::Refused(error)) => error.to_string(),
        Err(NoCopy::Gone) if !has_other_ways => return Err(NotOpened::Failed(locator.gone())),
        Err(NoCopy::OutOfReach) => {
            "it belongs to a thread with its own descriptor table, which takes Linux 6.9".into()
        }
        Err(NoCopy::Gone | NoCopy::None) => "its holders have none".into(),
    };
    Err(NotOpened::Refused(Reason::NoDescriptor(why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without a chosen backend the next one is tried after a refusal, not after a
    /// failure.
    #[test]
    fn other_patches_are_a_refusal_and_a_lack_of_memory_is_not() {
        for errno in [Errno::INVAL, Errno::TOOBIG] {
            let refused = refusal(errno);
            assert!(matches!(
                refused,
                NotOpened::Refused(Reason::LinkRefused(_))
            ));
        }
        for errno in [Errno::NOMEM, Errno::MFILE] {
            let failed = refusal(errno);
            assert!(matches!(failed, NotOpened::Failed(Error::Os { .. })));
        }
    }
}
