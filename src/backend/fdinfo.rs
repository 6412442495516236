//! The Fdinfo backend: the text of /proc.
//!
//! The kernel prints the list of buffers under `uring_lock`, or leaves it out
//! when the lock is taken. [`text`] is pure decoding; the rest opens files.

pub(crate) mod text;

mod epoll;
mod find;
mod reader;

pub(crate) use epoll::EpollReader;
pub(crate) use find::find;
pub(crate) use reader::Reader;

use crate::record::BufFields;

/// What the text does not say.
pub(crate) const UNKNOWN: BufFields = BufFields::all();
