//! Everything that is asked by BPF programs, and the one door to it: a build
//! without the feature `bpf` has `without_bpf.rs` in its place.

mod btf;
mod descriptor;
mod descriptors;
mod frames;
mod iterator;
pub(crate) mod link;
mod maps;
mod native;
mod program;
mod reply;
mod require;
mod table;
mod task_file;
mod wire;

pub(crate) use descriptors::Lister;
pub(crate) use table::{Table, BUFS, EPOLL, FILES, PAGES};

/// The processes that make calls in place of this one, in our pid namespace.
pub(crate) use crate::sys::observer::pids as observers;

use crate::backend::reader::{Opened, Search};
use crate::backend::select::NotOpened;
use crate::locator::Locator;
use crate::record::Plain;

/// A reader of a table by the iterators of a patched kernel.
pub(crate) fn native<R: Plain>(table: &'static Table<R>, locator: Locator) -> Opened<R> {
    Ok(Box::new(native::Native::open(table, locator)?))
}

/// A reader of a table by the iterators of a stock kernel.
pub(crate) fn task_file<R: Plain>(table: &'static Table<R>, locator: Locator) -> Opened<R> {
    Ok(Box::new(task_file::TaskFile::open(table, locator)?))
}

/// A search for rings by the iterators of a stock kernel.
pub(crate) fn search() -> Result<Box<dyn Search>, NotOpened> {
    Ok(Box::new(task_file::Finder::open(&task_file::RINGS)?))
}

/// A search for epoll sets by the iterators of a stock kernel.
pub(crate) fn search_sets() -> Result<Box<dyn Search>, NotOpened> {
    Ok(Box::new(task_file::Finder::open(&task_file::SETS)?))
}

#[cfg(test)]
mod tests;
