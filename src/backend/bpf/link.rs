//! Links of native iterators, as [`Link`](crate::Link) needs them.

use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{fcntl_getfl, OFlags};
use rustix::io::Errno;

use crate::backend::bpf::iterator;
use crate::backend::bpf::native::attach_stream;
use crate::backend::bpf::table::Table;
use crate::backend::facts::LinkInfo;
use crate::choice::Backend;
use crate::error::{Contention, Error, Missed, Result};
use crate::kernel;
use crate::locator::Name;
use crate::record::Plain;
use crate::sys::link as sys;

/// The name of the iterator target of a table.
pub(crate) fn target<R>(table: &'static Table<R>) -> String {
    table.target.to_string_lossy().into_owned()
}

pub(crate) fn attach<R: Plain>(table: &'static Table<R>, fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    attach_stream(table, fd).map_err(|e| e.of(Backend::Native))
}

pub(crate) fn open_pinned(path: &Path) -> Result<OwnedFd> {
    sys::open_pinned(&c_path(path)?)
        .map_err(|e| Error::os(format!("open the pinned link {}", path.display()), e))
}

pub(crate) fn pin(link: BorrowedFd<'_>, path: &Path) -> Result<()> {
    sys::pin(link, &c_path(path)?)
        .map_err(|e| Error::os(format!("pin a link at {}", path.display()), e))
}

/// The facts about a link, `None` for one that is not of an iterator.
pub(crate) fn info(link: BorrowedFd<'_>) -> Result<Option<LinkInfo>> {
    let facts = sys::link_facts(link).map_err(|e| Error::os("ask a link what it is", e))?;
    Ok(facts.map(|facts| LinkInfo {
        ep_id: (facts.target == "epoll").then_some(facts.ep_id),
        id: facts.id,
        target: facts.target,
        inode: facts.inode,
    }))
}

/// A new iterator of a link.
pub(crate) fn iterate(link: BorrowedFd<'_>, name: Name) -> Result<OwnedFd> {
    iterator::open(link).map_err(|errno| match errno {
        Errno::NXIO => name.gone(),
        errno => Error::os("bpf_iter_create on a native iterator", errno),
    })
}

/// Reads bytes of records.
pub(crate) fn read(iterator: &OwnedFd, room: &mut [u8], name: Name) -> Result<usize, Missed> {
    iterator::read(iterator, room).map_err(|errno| match errno {
        // The lock of an epoll set is waited for, unless who has the descriptor, too, wants
        // no waiting.
        Errno::AGAIN if matches!(name, Name::EpollId(_)) && is_nonblocking(iterator) => {
            Missed::Busy(Contention::LockHeldUnseen)
        }
        // Ours write a record for each slot; it would be so for ever.
        Errno::AGAIN => Missed::Failed(Error::malformed(
            "a native iterator",
            "no record and no end: a pinned link of another program?",
        )),
        errno => iterator::missed(errno, || name.gone()),
    })
}

fn is_nonblocking(iterator: &OwnedFd) -> bool {
    fcntl_getfl(iterator).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK))
}

/// Says what is wrong with records, the first of which is record `first`.
pub(crate) fn check<R>(
    table: &'static Table<R>,
    records: &[R],
    first: usize,
) -> Result<(), String> {
    (table.check)(records, first, kernel::page_shift())
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| {
        Error::os(
            format!("{}", path.display()),
            io::Error::from(io::ErrorKind::InvalidInput),
        )
    })
}
