//! The Fdinfo backend: the text of /proc.
//!
//! The kernel prints the list of buffers under `uring_lock`, or leaves it out
//! when the lock is taken. [`text`] and [`numbers`] are pure decoding; the rest
//! opens files.

mod bufs;
mod epoll;
mod file;
mod numbers;
pub(crate) mod paths;
mod proc;
mod search;
mod sets;
mod text;

pub(crate) use bufs::open as open_bufs;
pub(crate) use epoll::open as open_epoll;
pub(crate) use search::open as search;
pub(crate) use sets::open as search_sets;
