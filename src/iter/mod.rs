//! What is attached to a ring and gives its records.

mod address;
mod bufs;
mod snapshot;

pub(crate) use address::Address;
#[cfg(feature = "bpf")]
pub(crate) use address::Place;
pub use bufs::{Options, UringBufIter};
pub use snapshot::{Consistency, Snapshot};
