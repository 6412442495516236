//! The backends: each knows one way to ask the kernel, and gives records.
//!
//! The words of this folder: a *read* is what a caller asks for and gets a
//! snapshot of. It makes *attempts* until one is consistent. An attempt of a
//! BPF backend is a *walk*: a run of a program over a table, by a system call, by a
//! BPF iterator that is read to its end, or under a tracepoint.

#[cfg(feature = "bpf")]
pub(crate) mod bpf;
#[cfg(not(feature = "bpf"))]
#[path = "without_bpf.rs"]
pub(crate) mod bpf;
pub(crate) mod facts;
pub(crate) mod fdinfo;
mod reader;
pub(crate) mod select;
mod table;

pub(crate) use reader::{How, Opened, Reader, Search};
pub use table::{Record, RingRecord};
pub(crate) use table::{Table, PAGES};

use crate::choice::{Backend, Reason};
use crate::locator::Locator;
use select::NotOpened;

/// A reader of one table, by this backend.
pub(crate) fn open<R>(table: &'static Table<R>, backend: Backend, locator: Locator) -> Opened<R>
where
    R: crate::record::Plain,
{
    match backend {
        Backend::Native => bpf::native(&table.bpf, locator),
        Backend::TaskFile => bpf::task_file(&table.bpf, locator),
        Backend::Fdinfo => (table.fdinfo)(locator),
    }
}

/// A search for epoll sets, by this backend.
pub(crate) fn search_sets(backend: Backend) -> Result<Box<dyn Search>, NotOpened> {
    match backend {
        Backend::Native => Err(NotOpened::Refused(Reason::CannotSearch)),
        Backend::TaskFile => bpf::search_sets(),
        Backend::Fdinfo => fdinfo::search_sets(),
    }
}

/// A search for rings, by this backend.
pub(crate) fn search(backend: Backend) -> Result<Box<dyn Search>, NotOpened> {
    match backend {
        Backend::Native => Err(NotOpened::Refused(Reason::CannotSearch)),
        Backend::TaskFile => bpf::search(),
        Backend::Fdinfo => fdinfo::search(),
    }
}
