//! Records: what the backends fill in and everything above reads.
//!
//! `bpf/record.h` is the source of the layouts; sizes and offsets are compared
//! at compile time on both sides.

mod buf;
mod dumped;
mod file;
#[cfg(feature = "bpf")]
pub(crate) mod wire;

pub use buf::{BufFields, Direction, RegisteredBuf, RegisteredBufs};
pub(crate) use dumped::{Dumped, Room};
pub use file::{FileIdentity, FileKind, RegisteredFile};

/// A record of a table that an iterator shows: [`RegisteredBuf`],
/// [`RegisteredFile`], and no type of another crate.
pub trait Record: Dumped {}

impl Record for RegisteredBuf {}
