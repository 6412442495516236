//! What is attached to a ring or an epoll set and gives its records.

mod engine;
mod epoll;
#[cfg(feature = "bpf")]
mod files;
mod pages;
mod uring;

pub use epoll::EpollIter;
#[cfg(feature = "bpf")]
pub use files::{Descriptors, UringFileIter};
pub use pages::BufPages;
pub use uring::{Options, UringBufIter, UringIter};
