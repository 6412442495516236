//! The TaskFile backend: BPF programs on iterators of stock kernels.

mod find;
mod walk;

pub(crate) use find::Finder;
pub(crate) use walk::{outcome, owner, Maps, Walker};

pub(crate) fn page_shift() -> u8 {
    rustix::param::page_size().trailing_zeros() as u8
}
