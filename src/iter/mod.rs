//! The iterators that are attached to a ring or an epoll set and lend its records.

mod epoll;
mod files;
mod options;
mod pages;
mod uring;

pub use epoll::EpollIter;
pub use files::{Descriptors, UringFileIter};
pub use options::Options;
pub use pages::BufPages;
pub use uring::{UringBufIter, UringIter};
