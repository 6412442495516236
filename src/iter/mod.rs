//! The readers of rings and epoll sets, which lend their records.

mod descriptors;
mod epoll;
mod files;
mod options;
mod pages;
mod reader;
mod tables;
mod uring;

pub use descriptors::{DescriptorReader, Descriptors, NumberNow};
pub use epoll::{EpollIter, EpollReader};
pub use files::UringFileIter;
pub use options::Options;
pub use pages::BufPages;
pub use reader::{UringBufReader, UringFileReader, UringReader};
pub use uring::{UringBufIter, UringIter};
