//! [`PipeWitness`]: tells when the last reference to a file is gone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::sys;

/// A pipe. Its writing end is given to somebody; when the kernel has let go of
/// it, the reading end hangs up.
///
/// A child that another thread has just forked holds all descriptors until its
/// execve(2): ask with a limit of seconds.
#[derive(Debug)]
pub struct PipeWitness {
    reader: OwnedFd,
    writer: Option<OwnedFd>,
}

impl PipeWitness {
    /// A pipe with both ends open.
    ///
    /// # Errors
    /// EMFILE.
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = sys::pipe()?;
        Ok(Self {
            reader,
            writer: Some(writer),
        })
    }

    /// The end to be given away.
    ///
    /// # Panics
    /// After [`let_go`](Self::let_go).
    pub fn end(&self) -> BorrowedFd<'_> {
        self.writer.as_ref().expect("not let go of").as_fd()
    }

    /// Closes the test's own descriptor of that end.
    pub fn let_go(&mut self) {
        self.writer = None;
    }

    /// Whether nobody has that end any more, waiting up to `limit` for it.
    ///
    /// # Errors
    /// Those of poll(2).
    pub fn released(&self, limit: Duration) -> io::Result<bool> {
        sys::hung_up(self.reader.as_fd(), limit)
    }
}
