//! The tables of ring after ring.

use std::fmt;
use std::time::Duration;

use crate::backend::select::NotOpened;
use crate::backend::{self, How, Reader, RingRecord};
use crate::choice::{in_order, Backend, Refusal};
use crate::error::{Error, Result};
use crate::iter::options::Options;
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
    pub(super) options: Options<R>,
    /// Those that were opened.
    readers: Vec<Box<dyn Reader<R>>>,
    /// Those that cannot serve, whatever the ring.
    refused: Vec<Refusal>,
}

impl<R: RingRecord> Options<R> {
    /// See [`UringReader::new`].
    pub fn reader(self) -> UringReader<R> {
        UringReader {
            options: self,
            readers: Vec::new(),
            refused: Vec::new(),
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
    /// [`Error::NoBackend`] takes them with it: after that all are tried again.
    pub fn refused(&self) -> &[Refusal] {
        &self.refused
    }

    /// Reads the whole table of a ring that [`RingFinder`](crate::RingFinder) has
    /// found, as [`UringIter::snapshot`](crate::UringIter::snapshot).
    ///
    /// # Errors
    ///
    /// Those of [`UringIter::attach_ring`](crate::UringIter::attach_ring) and
    /// [`UringIter::snapshot`](crate::UringIter::snapshot).
    pub fn snapshot(&mut self, ring: &Ring) -> Result<Snapshot<'_, R>> {
        self.read(ring, How::Consistent)
    }

    /// Reads the whole table of a ring under its `uring_lock`, as
    /// [`UringIter::snapshot_locked`](crate::UringIter::snapshot_locked).
    ///
    /// # Errors
    ///
    /// Those of [`UringIter::attach_ring`](crate::UringIter::attach_ring) and
    /// [`UringIter::snapshot_locked`](crate::UringIter::snapshot_locked).
    pub fn snapshot_locked(&mut self, ring: &Ring, limit: Duration) -> Result<Snapshot<'_, R>> {
        self.read(ring, How::Locked(limit))
    }

    /// Reads the table of a ring once, without lock or proof, as
    /// [`UringIter::snapshot_raw`](crate::UringIter::snapshot_raw).
    ///
    /// # Errors
    ///
    /// Those of [`UringIter::attach_ring`](crate::UringIter::attach_ring) and
    /// [`UringIter::snapshot_raw`](crate::UringIter::snapshot_raw).
    pub fn snapshot_raw(&mut self, ring: &Ring) -> Result<Snapshot<'_, R>> {
        self.read(ring, How::Raw)
    }

    fn read(&mut self, ring: &Ring, how: How) -> Result<Snapshot<'_, R>> {
        let at = self.attach(Locator::of_ring(ring))?;
        self.readers[at].read(how, 0, &self.options.retry)
    }

    /// The best reader for this ring, attached to it.
    fn attach(&mut self, locator: Locator) -> Result<usize> {
        let mut refused_it = Vec::new();
        let wanted = self.options.backend;
        for &backend in in_order(&wanted) {
            if self.refused.iter().any(|known| known.backend == backend) {
                continue;
            }
            match self.attach_by(backend, &locator) {
                Ok(at) => return Ok(at),
                Err(NotOpened::Failed(error)) => return Err(error),
                Err(NotOpened::Refused(reason)) => {
                    let of_ring = backend == Backend::Native && reason.is_of_one_ring();
                    let list = match of_ring {
                        true => &mut refused_it,
                        false => &mut self.refused,
                    };
                    list.push(Refusal { backend, reason });
                }
            }
        }
        let mut refusals = std::mem::take(&mut self.refused);
        refusals.append(&mut refused_it);
        Err(Error::NoBackend { refusals })
    }

    fn attach_by(&mut self, backend: Backend, locator: &Locator) -> Result<usize, NotOpened> {
        let known = self
            .readers
            .iter()
            .position(|reader| reader.backend() == backend);
        match known {
            Some(at) if self.readers[at].locator() == locator => Ok(at),
            Some(at) => self.readers[at].attach(locator.clone()).map(|()| at),
            None => {
                let reader = backend::open(R::TABLE, backend, locator.clone())?;
                self.readers.push(reader);
                Ok(self.readers.len() - 1)
            }
        }
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
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
