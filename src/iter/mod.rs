//! What is attached to a ring and gives its records.

mod address;
mod engine;
#[cfg(feature = "bpf")]
mod files;
mod snapshot;
mod uring;

#[cfg(feature = "bpf")]
pub(crate) use address::{ring_attach_error, NoCopy, Place};
pub(crate) use address::{Address, RingName};
#[cfg(feature = "bpf")]
pub use files::{Descriptors, UringFileIter};
pub use snapshot::{Consistency, Snapshot};
pub use uring::{Options, UringBufIter, UringIter};
