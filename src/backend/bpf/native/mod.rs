//! The Native backend: iterators of a patched kernel.

mod attach;
mod paths;
mod reader;
mod stream;

pub(crate) use reader::Native;
pub(crate) use stream::attach_stream;
