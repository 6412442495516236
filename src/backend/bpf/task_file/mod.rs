//! The TaskFile backend: BPF programs on iterators of stock kernels.

mod finder;
mod locked;
mod reader;
mod search;
mod sets;
mod walk;

pub(crate) use finder::Finder;
pub(crate) use reader::TaskFile;
pub(crate) use search::RINGS;
pub(crate) use sets::SETS;
pub(crate) use walk::Walker;
