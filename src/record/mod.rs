//! Records: what the backends fill in and everything above reads.
//!
//! `bpf/record.h` is the source of the layouts; sizes and offsets are compared
//! at compile time on both sides.

mod buf;
mod dumped;
mod epoll;
mod file;
mod segment;
mod snapshot;
#[cfg(feature = "bpf")]
pub(crate) mod wire;

pub use buf::{BufFields, Direction, RegisteredBuf, RegisteredBufs};
pub(crate) use dumped::{Dumped, Room};
pub use epoll::{EpollEvents, EpollItem};
pub use file::{FileIdentity, FileKind, RegisteredFile};
pub use segment::Segment;
pub use snapshot::{Consistency, Snapshot};

/// A record that an iterator shows: [`RegisteredBuf`], [`RegisteredFile`],
/// [`EpollItem`], and no type of another crate.
pub trait Record: Dumped {}

/// A record of a table of a ring.
pub trait RingRecord: Record {}

impl Record for RegisteredBuf {}
impl RingRecord for RegisteredBuf {}
impl Record for RegisteredFile {}
impl RingRecord for RegisteredFile {}
impl Record for EpollItem {}
