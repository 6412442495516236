//! The tables that can be read: for each record, the facts that the backends need
//! about its table.

use std::fmt::Debug;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::backend::reader::Opened;
use crate::backend::select::NotOpened;
use crate::backend::{bpf, fdinfo};
use crate::choice::Reason;
use crate::locator::Locator;
use crate::record::{EpollItem, RegisteredBuf, RegisteredFile, Segment};

/// The facts that the backends need about one table.
pub struct Table<R: 'static> {
    pub(crate) bpf: bpf::Table<R>,
    /// Opens the table by the text of /proc.
    pub(crate) fdinfo: fn(Locator) -> Opened<R>,
}

/// A record that an iterator lends: [`RegisteredBuf`], [`RegisteredFile`] and
/// [`EpollItem`]. No other type can be one.
pub trait Record:
    FromBytes + IntoBytes + KnownLayout + Immutable + Copy + Debug + Send + Sync + 'static
{
    /// Not part of the public interface.
    #[doc(hidden)]
    const TABLE: &'static Table<Self>;
}

/// A [`Record`] of a ring's table: [`RegisteredBuf`] and [`RegisteredFile`].
pub trait RingRecord: Record {}

impl Record for RegisteredBuf {
    const TABLE: &'static Table<Self> = &Table {
        bpf: bpf::BUFS,
        fdinfo: fdinfo::open_bufs,
    };
}

impl RingRecord for RegisteredBuf {}

impl Record for RegisteredFile {
    const TABLE: &'static Table<Self> = &Table {
        bpf: bpf::FILES,
        fdinfo: |_| Err(not_shown("the identity of registered files, only names")),
    };
}

impl RingRecord for RegisteredFile {}

impl Record for EpollItem {
    const TABLE: &'static Table<Self> = &Table {
        bpf: bpf::EPOLL,
        fdinfo: fdinfo::open_epoll,
    };
}

/// The segments of a buffer: one table for each slot.
pub(crate) static PAGES: Table<Segment> = Table {
    bpf: bpf::PAGES,
    fdinfo: |_| Err(not_shown("the pages of buffers")),
};

fn not_shown(what: &'static str) -> NotOpened {
    NotOpened::Refused(Reason::NotInFdinfo(what))
}
