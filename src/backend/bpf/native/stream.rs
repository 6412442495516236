//! Links whose iterators give records as bytes.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::backend::bpf::maps::{self, Maps};
use crate::backend::bpf::native::attach::{attach, refusal};
use crate::backend::bpf::program::{Forms, Programs};
use crate::backend::bpf::require;
use crate::backend::bpf::table::Table;
use crate::backend::bpf::wire::WalkRequest;
use crate::backend::select::NotOpened;
use crate::choice::Reason;
use crate::error::Error;
use crate::locator::{Kind, Locator};
use crate::record::Plain;

const STREAM: Forms = Forms {
    direct: &[c"stream_native"],
    compat: &[c"stream_native_compat"],
};

/// Attaches to the ring or epoll set behind a descriptor.
pub(crate) fn attach_stream<R: Plain>(
    table: &'static Table<R>,
    fd: BorrowedFd<'_>,
) -> Result<OwnedFd, NotOpened> {
    require::native(table)?;
    let programs = Programs::load(|| maps::open(table, table.first), STREAM)?;
    // Its page size is all that these programs ask of the request.
    Maps::of(table, &programs.object, table.first)?.ask(WalkRequest::default())?;
    attach(&programs, fd).map_err(|errno| {
        if let Some(error) = about_descriptor(table.kind, fd, errno) {
            return NotOpened::Failed(error);
        }
        match refusal(errno) {
            NotOpened::Refused(Reason::LinkRefused(source)) => {
                NotOpened::Failed(Error::LinkRefused {
                    target: table.target.to_string_lossy().into_owned(),
                    source,
                })
            }
            other => other,
        }
    })
}

/// The meaning of a refused attach, where that is about the descriptor.
fn about_descriptor(kind: Kind, fd: BorrowedFd<'_>, errno: Errno) -> Option<Error> {
    let locator = || match kind {
        Kind::Ring => Locator::of_fd(fd),
        Kind::Epoll => Locator::of_epoll_fd(fd),
    };
    match (errno, kind) {
        (Errno::OPNOTSUPP, _) => locator().err(),
        (Errno::NXIO, Kind::Ring) => Some(match locator() {
            Ok(locator) => locator.gone(),
            Err(error) => error,
        }),
        _ => None,
    }
}
