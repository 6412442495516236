//! The memory of one registered buffer.

use std::fmt;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::backend::{How, Reader, PAGES};
use crate::choice::Selection;
use crate::error::Result;
use crate::iter::options::Options;
use crate::locator::Locator;
use crate::record::{Segment, Snapshot};
use crate::retry::Retry;
use crate::ring::Ring;

/// Reads the pages of the registered buffers of one ring, one buffer at a time,
/// with the backends TaskFile and Native.
///
/// It shows the pages that the ring has pinned, also when the process that
/// registered the buffer has unmapped it or has something else at that address. So
/// you can see the memory that a ring pins, find that two buffers share a page, and
/// save a buffer that is not mapped anywhere.
///
/// ```no_run
/// use uring_bpf_iter::BufPages;
///
/// # fn main() -> uring_bpf_iter::Result<()> {
/// let mut pages = BufPages::attach_pid(1234, 7)?;
/// for segment in pages.segments(0)?.iter() {
///     println!("{:?}: {} bytes from {}", segment.pfn(), segment.len(), segment.offset());
/// }
/// # Ok(())
/// # }
/// ```
///
/// It attaches as a [`UringIter`](crate::UringIter) does, needs the same capabilities, and does
/// not keep a ring alive either. Page frame numbers need more, see
/// [`Segment::pfn`].
/// Buffers that the kernel provides (a block request lent by ublk, 6.15) have
/// pages like any other.
#[must_use]
pub struct BufPages {
    reader: Box<dyn Reader<Segment>>,
    selection: Selection,
    retry: Retry,
}

impl Options<Segment> {
    /// See [`BufPages::attach`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn attach(self, ring: impl AsFd) -> Result<BufPages> {
        BufPages::open(Locator::of_fd(ring.as_fd())?, self)
    }

    /// See [`BufPages::attach_pid`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn attach_pid(self, pid: u32, fd: i32) -> Result<BufPages> {
        BufPages::open(Locator::of_process(pid, fd)?, self)
    }

    /// See [`BufPages::attach_ring`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn attach_ring(self, ring: &Ring) -> Result<BufPages> {
        BufPages::open(Locator::of_ring(ring), self)
    }
}

impl BufPages {
    /// Options other than the defaults.
    pub fn options() -> Options<Segment> {
        Options::new()
    }

    /// Attaches to a ring of this process, as [`UringIter::attach`](crate::UringIter::attach).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn attach(ring: impl AsFd) -> Result<Self> {
        Self::options().attach(ring)
    }

    /// Attaches to a ring of another process, as [`UringIter::attach_pid`](crate::UringIter::attach_pid).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn attach_pid(pid: u32, fd: i32) -> Result<Self> {
        Self::options().attach_pid(pid, fd)
    }

    /// Attaches to a ring that was found, as [`UringIter::attach_ring`](crate::UringIter::attach_ring).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn attach_ring(ring: &Ring) -> Result<Self> {
        Self::options().attach_ring(ring)
    }

    fn open(locator: Locator, options: Options<Segment>) -> Result<Self> {
        let (reader, selection, retry) = options.open(&PAGES, locator)?;
        Ok(Self {
            reader,
            selection,
            retry,
        })
    }

    /// Turns to another ring, as [`UringIter::reattach`](crate::UringIter::reattach).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn reattach(&mut self, ring: &Ring) -> Result<()> {
        let attached = self.reader.attach(Locator::of_ring(ring));
        attached.map_err(|e| e.of(self.selection.backend))
    }

    /// The backend in use, and why the preferred ones are not.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// The segments of the buffer in slot `index`, in the order of its bytes;
    /// none for an empty slot. Consistent and read without waiting, as
    /// [`UringIter::snapshot`](crate::UringIter::snapshot).
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSlot`](crate::Error::NoSuchSlot) for an index beyond the
    /// table, and those of [`UringIter::snapshot`](crate::UringIter::snapshot).
    pub fn segments(&mut self, index: u64) -> Result<Snapshot<'_, Segment>> {
        self.reader.read(How::Consistent, index, &self.retry)
    }

    /// The same, read under `uring_lock`, as [`UringIter::snapshot_locked`](crate::UringIter::snapshot_locked).
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSlot`](crate::Error::NoSuchSlot) for an index beyond the
    /// table, and those of [`UringIter::snapshot_locked`](crate::UringIter::snapshot_locked).
    pub fn segments_locked(
        &mut self,
        index: u64,
        limit: Duration,
    ) -> Result<Snapshot<'_, Segment>> {
        self.reader.read(How::Locked(limit), index, &self.retry)
    }

    /// The same, read once without lock or proof, as
    /// [`UringIter::snapshot_raw`](crate::UringIter::snapshot_raw).
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSlot`](crate::Error::NoSuchSlot) for an index beyond the
    /// table, and those of [`UringIter::snapshot_raw`](crate::UringIter::snapshot_raw).
    pub fn segments_raw(&mut self, index: u64) -> Result<Snapshot<'_, Segment>> {
        self.reader.read(How::Raw, index, &self.retry)
    }
}

impl fmt::Debug for BufPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufPages")
            .field("backend", &self.selection().backend)
            .finish_non_exhaustive()
    }
}
