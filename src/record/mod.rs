//! Records: what the backends fill in and everything above reads.
//!
//! `bpf/record.h` is the source of the layouts; sizes and offsets are compared
//! at compile time on both sides.

mod buf;
#[cfg(feature = "bpf")]
pub(crate) mod wire;

pub use buf::{BufFields, Direction, RegisteredBuf, RegisteredBufs};
