//! What is attached to a ring or an epoll set and gives its records.

mod address;
mod engine;
mod epoll;
#[cfg(feature = "bpf")]
mod files;
mod pages;
mod snapshot;
mod uring;

#[cfg(feature = "bpf")]
pub(crate) use address::{epoll_attach_error, ring_attach_error, NoCopy, Place};
pub(crate) use address::{Address, Name, EPOLL};
pub use epoll::EpollIter;
#[cfg(feature = "bpf")]
pub use files::{Descriptors, UringFileIter};
pub use pages::BufPages;
pub use snapshot::{Consistency, Snapshot};
pub use uring::{Options, UringBufIter, UringIter};
