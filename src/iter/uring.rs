//! A table of one ring.

use std::fmt;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::backend::{How, Reader, RingRecord};
use crate::choice::Selection;
use crate::error::Result;
use crate::iter::options::Options;
use crate::locator::Locator;
use crate::record::{RegisteredBuf, Snapshot};
use crate::retry::Retry;
use crate::ring::Ring;

impl<R: RingRecord> Options<R> {
    /// See [`UringIter::attach`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn attach(self, ring: impl AsFd) -> Result<UringIter<R>> {
        UringIter::open(Locator::of_fd(ring.as_fd())?, self)
    }

    /// See [`UringIter::attach_pid`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn attach_pid(self, pid: u32, fd: i32) -> Result<UringIter<R>> {
        UringIter::open(Locator::of_process(pid, fd)?, self)
    }

    /// See [`UringIter::attach_ring`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn attach_ring(self, ring: &Ring) -> Result<UringIter<R>> {
        UringIter::open(Locator::of_ring(ring), self)
    }
}

/// The registered buffers of one ring: [`UringIter`] of [`RegisteredBuf`].
///
/// With the TaskFile and Native backends it keeps about 800 kB for the records
/// of the largest table that a kernel allows (16,384 buffers).
pub type UringBufIter = UringIter<RegisteredBuf>;

/// A table of one ring, as often as wanted.
///
/// It remembers which ring it is, not a descriptor: it never keeps a ring
/// alive, and when the ring goes, the next snapshot says
/// [`Error::RingGone`](crate::Error::RingGone).
///
/// ```no_run
/// use uring_bpf_iter::{RegisteredBufs, UringBufIter};
///
/// # fn main() -> uring_bpf_iter::Result<()> {
/// let mut iter = UringBufIter::attach_pid(1234, 7)?;
/// let bufs = iter.snapshot()?;
/// for buf in bufs.filled() {
///     println!("{}: {:#x}, {} bytes", buf.index(), buf.addr(), buf.len());
/// }
/// println!("{} of {} slots, {}", bufs.filled().count(), bufs.len(), bufs.consistency());
/// # Ok(())
/// # }
/// ```
///
/// The TaskFile backend needs Linux 6.1 and `CAP_BPF` with `CAP_PERFMON`, or
/// `CAP_SYS_ADMIN`, in the initial user namespace; so does the Native one, and
/// the patches in kernel/, and, for a ring of another process, ptrace rights
/// over it.
///
/// It belongs to the process that made it: a child of fork(2) cannot use it.
#[must_use]
pub struct UringIter<R: RingRecord> {
    pub(super) reader: Box<dyn Reader<R>>,
    selection: Selection,
    pub(super) retry: Retry,
}

impl<R: RingRecord> UringIter<R> {
    /// Options other than the defaults.
    pub fn options() -> Options<R> {
        Options::new()
    }

    /// Attaches to a ring of this process, by the best backend there is.
    ///
    /// # Errors
    ///
    /// [`Error::NotARing`](crate::Error::NotARing) if the descriptor is something else (EOPNOTSUPP),
    /// [`Error::NoBackend`](crate::Error::NoBackend) if none can serve.
    pub fn attach(ring: impl AsFd) -> Result<Self> {
        Self::options().attach(ring)
    }

    /// Attaches to the ring that is descriptor `fd` of process `pid`, a number
    /// of the caller's pid namespace. The descriptor is copied by
    /// pidfd_getfd(2) (Linux 5.6) for a moment, which takes ptrace rights over
    /// the process: the same user, or `CAP_SYS_PTRACE`.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchProcess`](crate::Error::NoSuchProcess) (ESRCH), [`Error::NoSuchDescriptor`](crate::Error::NoSuchDescriptor) (EBADF),
    /// [`Error::NotPermitted`](crate::Error::NotPermitted) (EPERM), [`Error::NotARing`](crate::Error::NotARing) (EOPNOTSUPP),
    /// [`Error::NoBackend`](crate::Error::NoBackend) if none can serve.
    pub fn attach_pid(pid: u32, fd: i32) -> Result<Self> {
        Self::options().attach_pid(pid, fd)
    }

    /// Attaches to a ring that [`RingFinder`](crate::RingFinder) has found,
    /// also one without a descriptor. With the TaskFile backend this takes no
    /// rights over its processes.
    ///
    /// # Errors
    ///
    /// [`Error::NoBackend`](crate::Error::NoBackend) if none can serve, [`Error::Unsupported`](crate::Error::Unsupported) for a
    /// ring without a descriptor if only fdinfo can serve,
    /// [`Error::RingGone`](crate::Error::RingGone) (ENXIO).
    pub fn attach_ring(ring: &Ring) -> Result<Self> {
        Self::options().attach_ring(ring)
    }

    fn open(locator: Locator, options: Options<R>) -> Result<Self> {
        let (reader, selection, retry) = options.open(R::TABLE, locator)?;
        Ok(Self {
            reader,
            selection,
            retry,
        })
    }

    /// Turns to another ring, with the same backend: what was loaded stays
    /// loaded where that is possible.
    ///
    /// # Errors
    ///
    /// As [`UringIter::attach_ring`]. After an error it is still attached
    /// to the ring it was attached to.
    pub fn reattach(&mut self, ring: &Ring) -> Result<()> {
        let attached = self.reader.attach(Locator::of_ring(ring));
        attached.map_err(|e| e.of(self.selection.backend))
    }

    /// Which backend serves, and why better ones do not.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Reads the whole table: [`Consistency::Locked`](crate::Consistency::Locked) with Native and
    /// fdinfo, [`Consistency::Verified`](crate::Consistency::Verified) with TaskFile. Takes no lock that it
    /// would have to wait for, and tries again within the bounds of [`Retry`]
    /// while the ring is busy.
    ///
    /// # Errors
    ///
    /// [`Error::Contended`](crate::Error::Contended), which is retryable, if the table would not hold
    /// still or `uring_lock` was held all the time (EDEADLK of the native
    /// iterator). [`Error::RingGone`](crate::Error::RingGone) if no holder has the ring any more
    /// (ENXIO).
    pub fn snapshot(&mut self) -> Result<Snapshot<'_, R>> {
        self.reader.read(How::Consistent, 0, &self.retry)
    }

    /// Reads the whole table under `uring_lock`, at one moment. The Native
    /// backend tries for the lock until `limit`. The TaskFile backend waits
    /// for it: from Linux 6.13 on, for a ring of which somebody has a
    /// descriptor, and with ptrace rights over that process; what follows is
    /// about this one.
    ///
    /// Comes back within `limit`, give or take the time that a process takes
    /// to start, also when the owner of the lock never lets go of it. The wait
    /// is done by a child process, which shares this one's memory and has a
    /// copy of its descriptors for a moment. Everything is made
    /// ready before the owner of the lock is looked at; in the rare case that
    /// the lock is taken for good right after that look, the child
    /// stays until the lock is let go, and not even SIGKILL ends it sooner; for
    /// so long it keeps the ring's descriptor open, no other, and the memory of
    /// this process in use, also when this process ends.
    ///
    /// From the first such read until the iterator is dropped, in children of fork(2)
    /// as well, a small program runs
    /// at each io_uring_register(2) of the machine, and does nothing but at the
    /// child's: to attach it again takes longer than all the rest of a read.
    ///
    /// # Errors
    ///
    /// [`Error::Contended`](crate::Error::Contended), which is retryable, if the lock could not be had
    /// in time. [`Error::Unsupported`](crate::Error::Unsupported) before Linux 6.13, and for a ring
    /// without a descriptor. [`Error::NotPermitted`](crate::Error::NotPermitted) without ptrace rights
    /// (EPERM). [`Error::RingGone`](crate::Error::RingGone) (ENXIO).
    pub fn snapshot_locked(&mut self, limit: Duration) -> Result<Snapshot<'_, R>> {
        self.reader.read(How::Locked(limit), 0, &self.retry)
    }

    /// Reads the table once, without lock or proof, for a ring that cannot be
    /// read in a better way, for example because the owner of `uring_lock` is
    /// stuck. Labelled [`Consistency::Raw`](crate::Consistency::Raw). With Native it is
    /// the look of TaskFile, and says so ([`Snapshot::backend`]); with fdinfo
    /// it is the same as [`UringIter::snapshot`].
    ///
    /// # Errors
    ///
    /// [`Error::Contended`](crate::Error::Contended), which is retryable, if the table was just being
    /// taken down. [`Error::RingGone`](crate::Error::RingGone) (ENXIO).
    pub fn snapshot_raw(&mut self) -> Result<Snapshot<'_, R>> {
        self.reader.read(How::Raw, 0, &self.retry)
    }
}

impl<R: RingRecord> fmt::Debug for UringIter<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringIter")
            .field("backend", &self.selection.backend)
            .finish_non_exhaustive()
    }
}
