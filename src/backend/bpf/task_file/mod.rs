//! The TaskFile backend: BPF programs on iterators of stock kernels.

mod locked;
mod reader;
mod search;
mod walk;

pub(crate) use reader::TaskFile;
pub(crate) use search::Finder;
pub(crate) use walk::Walker;
