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

/// Reads a table of one ring, again and again.
///
/// It remembers the ring by its inode and keeps no descriptor, so it never keeps a
/// ring alive. When the ring is gone, the next snapshot is
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
/// `CAP_SYS_ADMIN`, in the initial user namespace; the Native backend
/// needs the same, the patches in kernel/ and, for a ring of another process,
/// ptrace rights over it.
///
/// Only the process that made it can use it: in a child of fork(2) every call fails.
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

    /// Attaches to a ring of this process, with the best backend that works.
    ///
    /// # Errors
    ///
    /// [`Error::NotARing`](crate::Error::NotARing) if the descriptor is something else (EOPNOTSUPP),
    /// [`Error::NoBackend`](crate::Error::NoBackend) if none can serve.
    pub fn attach(ring: impl AsFd) -> Result<Self> {
        Self::options().attach(ring)
    }

    /// Attaches to the ring that is descriptor `fd` of process `pid`, in the
    /// caller's pid namespace. The descriptor is copied by
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

    /// The backend in use, and why the preferred ones are not.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Reads the whole table: [`Consistency::Locked`](crate::Consistency::Locked) with Native and
    /// fdinfo, [`Consistency::Verified`](crate::Consistency::Verified) with TaskFile. Never waits for a
    /// lock, and tries again within the bounds of [`Retry`]
    /// while the ring is busy.
    ///
    /// # Errors
    ///
    /// [`Error::Contended`](crate::Error::Contended), which is retryable, if the table kept
    /// changing or `uring_lock` was held all the time (EDEADLK of the native
    /// iterator). [`Error::RingGone`](crate::Error::RingGone) if no holder still has the ring
    /// (ENXIO).
    pub fn snapshot(&mut self) -> Result<Snapshot<'_, R>> {
        self.reader.read(How::Consistent, 0, &self.retry)
    }

    /// Reads the whole table under `uring_lock`, at one moment. The Native
    /// backend tries to take the lock until `limit`. The TaskFile backend waits
    /// for it; that works from Linux 6.13 on, for a ring that has a descriptor in
    /// some process, and with ptrace rights over that process. The rest of this
    /// text is about the TaskFile backend.
    ///
    /// The call returns within `limit`, plus the time that a process takes to
    /// start, even if the owner of the lock never releases it. A child process
    /// waits for the lock. Everything is prepared before the call checks that the
    /// owner of the lock is running. In the rare case that a task takes the lock
    /// and keeps it right after that check, the child stays until the lock is
    /// released, and not even SIGKILL ends it sooner. Until then it keeps the ring's
    /// descriptor open (and no other), and the memory of this process in use, even
    /// after this process has ended.
    ///
    /// The child, `uring-observer`, is started by the first such read and stays for
    /// the next ones: until the iterator is dropped, or the thread that started it
    /// or this process ends. (After that or a SIGKILL the next read starts another.)
    /// It shares the memory of this process, and has no descriptor between two
    /// reads. It keeps the rights and namespaces that this process had when it was
    /// started, and cannot use them: a filter of seccomp(2) leaves it the few calls
    /// that it is there for. Only a wait(2) call with `__WALL` or `__WCLONE` meets it,
    /// also as what is left of it if the program calls execve(2) before it drops the
    /// iterator. Because it shares the memory, other programs see it as a holder of
    /// the rings that this process has mapped. Where this process has given up the
    /// right to end it (setuid(2)) and has forked, it ends with the last such child.
    ///
    /// As long (in children of fork(2) as well), a small program runs at each
    /// io_uring_register(2) of the machine and acts only on the call of the child:
    /// attaching it for each read would take longer than the rest of the read.
    ///
    /// # Errors
    ///
    /// [`Error::Contended`](crate::Error::Contended), which is retryable, if the lock was not
    /// released in time. [`Error::Unsupported`](crate::Error::Unsupported) before Linux 6.13, and for a ring
    /// without a descriptor. [`Error::NotPermitted`](crate::Error::NotPermitted) without ptrace rights
    /// (EPERM). [`Error::Os`](crate::Error::Os) if the child cannot be started: EAGAIN at a
    /// limit of processes, EBUSY if a filter of seccomp(2) that notifies somebody else
    /// is upon this process. [`Error::RingGone`](crate::Error::RingGone) (ENXIO).
    pub fn snapshot_locked(&mut self, limit: Duration) -> Result<Snapshot<'_, R>> {
        self.reader.read(How::Locked(limit), 0, &self.retry)
    }

    /// Reads the table once, without lock or proof, for a ring that cannot be
    /// read in a better way, for example because the owner of `uring_lock` is
    /// stuck. Labelled [`Consistency::Raw`](crate::Consistency::Raw). The Native
    /// backend reads it as TaskFile does, and [`Snapshot::backend`] says so; with
    /// fdinfo it is the same as [`UringIter::snapshot`].
    ///
    /// # Errors
    ///
    /// [`Error::Contended`](crate::Error::Contended), which is retryable, if the table was being
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
