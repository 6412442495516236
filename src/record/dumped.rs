//! What an engine has to know of a record to have memory filled with it.

use std::ffi::CStr;
use std::fmt::Debug;
#[cfg(feature = "bpf")]
use std::os::fd::BorrowedFd;

#[cfg(feature = "bpf")]
use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::backend::select::NotOpened;
use crate::backend::ReadText;
#[cfg(feature = "bpf")]
use crate::error::Error;
use crate::locator::Locator;

/// One record a slot.
pub trait Dumped:
    FromBytes + IntoBytes + KnownLayout + Immutable + Copy + Debug + Send + Sync + 'static
{
    /// The iterator target of a kernel with native iterators.
    const TARGET: &'static CStr;

    /// Where the programs put records.
    const ROOM: Room;

    /// The compiled programs.
    #[cfg(feature = "bpf")]
    fn object() -> &'static [u8];

    /// Says what is wrong with a record that no program of ours has written.
    fn check(&self, at: usize, page_shift: u8) -> Result<(), String>;

    /// The address of `struct page` of page frame 0, if records tell of pages
    /// and the caller may know their numbers.
    #[cfg(feature = "bpf")]
    fn page_base() -> Option<u64> {
        None
    }

    /// What it means that the kernel did not attach to this descriptor, where
    /// that is about the descriptor.
    #[cfg(feature = "bpf")]
    fn attach_error(fd: BorrowedFd<'_>, errno: Errno) -> Option<Error>;

    /// How fdinfo tells it, if it does.
    fn by_fdinfo(address: Locator) -> Result<Box<dyn ReadText<Self>>, NotOpened>;
}

/// The map that records are in.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Its name.
    pub map: &'static CStr,
    /// The number of records that there is room for at first.
    pub first: usize,
    /// The largest number that there can be; a map whose `first` it is has
    /// that size always.
    pub max: usize,
}
