//! Records: data that the backends fill in and everything above reads.
//!
//! `bpf/record.h` is the source of the layouts; sizes and offsets are compared
//! at compile time on both sides.

mod buf;
mod epoll;
mod file;
mod segment;
mod snapshot;

use std::fmt::Debug;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use buf::{BufFields, Direction, RegisteredBuf, RegisteredBufs};
pub use epoll::{EpollEvents, EpollItem};
pub use file::{FileFlags, FileIdentity, FileKind, RegisteredFile};
pub use segment::Segment;
pub use snapshot::{Consistency, Snapshot};

/// Plain data, which any bytes are.
pub(crate) trait Plain:
    FromBytes + IntoBytes + KnownLayout + Immutable + Copy + Debug + Send + Sync + 'static
{
}

impl<R> Plain for R where
    R: FromBytes + IntoBytes + KnownLayout + Immutable + Copy + Debug + Send + Sync + 'static
{
}

/// A record that says what is wrong with it.
pub(crate) trait Check {
    /// Finds what no program of ours would have written in record `at` of a
    /// table.
    fn check(&self, at: usize, page_shift: u8) -> Result<(), String>;
}

/// Checks records of a table, the first of which is record `first`.
pub(crate) fn check_all<R: Check>(
    records: &[R],
    first: usize,
    page_shift: u8,
) -> Result<(), String> {
    for (i, record) in records.iter().enumerate() {
        record.check(first + i, page_shift)?;
    }
    Ok(())
}
