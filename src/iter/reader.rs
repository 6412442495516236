//! The tables of ring after ring.

use std::fmt;
use std::time::Duration;

use crate::backend::{How, RingRecord};
use crate::choice::Refusal;
use crate::error::Result;
use crate::iter::options::Options;
use crate::iter::tables::Tables;
use crate::locator::Locator;
use crate::record::{RegisteredBuf, RegisteredFile, Snapshot};
use crate::ring::Ring;

/// Reads the registered buffers of ring after ring: [`UringReader`] of
/// [`RegisteredBuf`].
pub type UringBufReader = UringReader<RegisteredBuf>;

/// Reads the registered files of ring after ring: [`UringReader`] of
/// [`RegisteredFile`], with the backends TaskFile and Native.
pub type UringFileReader = UringReader<RegisteredFile>;

/// Reads a table of any ring, one after the other.
///
/// It loads its programs for the first ring, which takes milliseconds, and keeps
/// them: after that another ring costs as much as the same one again. It keeps
/// nothing for each ring. With the TaskFile backend a snapshot of a ring that has a
/// descriptor is one system call (Linux 6.10; 6.14 below the initial pid namespace);
/// a ring that is only mapped takes a second load of programs, once. With Native the
/// iterator stays attached until another ring is read.
///
/// Each ring is read by the best backend that can serve it; [`Snapshot::backend`]
/// says which that was.
///
/// ```no_run
/// use uring_bpf_iter::{RegisteredBufs, RingFinder, UringBufReader};
///
/// # fn main() -> uring_bpf_iter::Result<()> {
/// let mut reader = UringBufReader::new();
/// for ring in &RingFinder::new()?.find_all()? {
///     let bufs = reader.snapshot(ring)?;
///     println!("ring {}: {} bytes pinned", ring.inode, bufs.pinned_bytes());
/// }
/// # Ok(())
/// # }
/// ```
///
/// The kernel versions and privileges are those of
/// [`UringIter`](crate::UringIter), and, as one of those, only the process that made
/// it can use it.
#[must_use]
pub struct UringReader<R: RingRecord> {
    pub(super) tables: Tables<R>,
}

impl<R: RingRecord> Options<R> {
    /// See [`UringReader::new`].
    pub fn reader(self) -> UringReader<R> {
        UringReader {
            tables: Tables::new(self),
        }
    }
}

impl<R: RingRecord> UringReader<R> {
    /// A reader that uses, for each ring, the best backend that works.
    pub fn new() -> Self {
        Self::options().reader()
    }

    /// Options other than the defaults.
    pub fn options() -> Options<R> {
        Options::new()
    }

    /// The backends that turned out not to serve here, whatever the ring, and why.
    /// [`Error::NoBackend`](crate::Error::NoBackend) takes them with it: after that all are tried again.
    pub fn refused(&self) -> &[Refusal] {
        self.tables.refused()
    }

    /// Reads the whole table of a ring that [`RingFinder`](crate::RingFinder) has
    /// found, as [`UringIter::snapshot`](crate::UringIter::snapshot).
    ///
    /// # Errors
    ///
    /// Those of [`UringIter::attach_ring`](crate::UringIter::attach_ring) and
    /// [`UringIter::snapshot`](crate::UringIter::snapshot).
    pub fn snapshot(&mut self, ring: &Ring) -> Result<Snapshot<'_, R>> {
        self.tables.read(Locator::of_ring(ring), How::Consistent)
    }

    /// Reads the whole table of a ring under its `uring_lock`, as
    /// [`UringIter::snapshot_locked`](crate::UringIter::snapshot_locked).
    ///
    /// # Errors
    ///
    /// Those of [`UringIter::attach_ring`](crate::UringIter::attach_ring) and
    /// [`UringIter::snapshot_locked`](crate::UringIter::snapshot_locked).
    pub fn snapshot_locked(&mut self, ring: &Ring, limit: Duration) -> Result<Snapshot<'_, R>> {
        self.tables.read(Locator::of_ring(ring), How::Locked(limit))
    }

    /// Reads the table of a ring once, without lock or proof, as
    /// [`UringIter::snapshot_raw`](crate::UringIter::snapshot_raw).
    ///
    /// # Errors
    ///
    /// Those of [`UringIter::attach_ring`](crate::UringIter::attach_ring) and
    /// [`UringIter::snapshot_raw`](crate::UringIter::snapshot_raw).
    pub fn snapshot_raw(&mut self, ring: &Ring) -> Result<Snapshot<'_, R>> {
        self.tables.read(Locator::of_ring(ring), How::Raw)
    }
}

impl<R: RingRecord> Default for UringReader<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: RingRecord> fmt::Debug for UringReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringReader")
            .field("options", self.tables.options())
            .finish_non_exhaustive()
    }
}
