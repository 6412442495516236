//! The items of one epoll set.

use std::fmt;
use std::os::fd::AsFd;

use crate::backend::{How, Reader, Record};
use crate::choice::Selection;
use crate::error::Result;
use crate::iter::options::Options;
use crate::locator::Locator;
use crate::record::{EpollItem, Snapshot};
use crate::retry::Retry;

impl Options<EpollItem> {
    /// See [`EpollIter::attach`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn attach(self, set: impl AsFd) -> Result<EpollIter> {
        EpollIter::open(Locator::of_epoll_fd(set.as_fd())?, self)
    }

    /// See [`EpollIter::attach_pid`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn attach_pid(self, pid: u32, fd: i32) -> Result<EpollIter> {
        EpollIter::open(Locator::of_process_epoll(pid, fd)?, self)
    }
}

/// Reads the items of one epoll set, again and again, in the kernel's order: by
/// the address of the file and the number that it was added under.
///
/// It keeps no descriptor, so it never keeps a set alive. When the set is gone, or
/// its descriptor is another file, the next snapshot is
/// [`Error::EpollGone`](crate::Error::EpollGone). With Native that is exact. With
/// TaskFile a set is known by its process, its descriptor and its place in kernel
/// memory; a later set with the same descriptor that happens to get the same place
/// is taken for it. With Fdinfo any epoll set with the same descriptor is.
///
/// ```no_run
/// use uring_bpf_iter::EpollIter;
///
/// # fn main() -> uring_bpf_iter::Result<()> {
/// let mut iter = EpollIter::attach_pid(1234, 4)?;
/// for item in iter.snapshot()?.iter() {
///     println!("{}: {:?} {}", item.fd(), item.events(), item.file().kind());
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Backends
///
/// All except TaskFile wait for `ep->mtx`. Each epoll_ctl(2) on the set holds it
/// for a moment, and so does each epoll_wait(2) that has events to deliver; one
/// that waits for a page fault of its process holds it longer.
///
/// - Native (the patches in kernel/, and the capabilities of TaskFile) takes
///   `ep->mtx` and reads all items under one hold of it
///   ([`Consistency::Locked`](crate::Consistency::Locked)). The wait for it can be interrupted by a signal
///   that ends the process, and has no other limit: [`Retry`](crate::Retry)
///   does not bound it, and there is no EDEADLK.
/// - TaskFile (Linux 6.1, `CAP_BPF` with `CAP_PERFMON`, or `CAP_SYS_ADMIN`)
///   reads without the lock and never waits
///   ([`Consistency::Verified`](crate::Consistency::Verified)); if the lock is
///   seldom free for as long as two walks take, the result is
///   [`Error::Contended`](crate::Error::Contended).
/// - Fdinfo (no privilege for your own processes) does not identify the files
///   of the items, only their inodes
///   ([`FileKind::Unknown`](crate::FileKind::Unknown)). The kernel's wait for
///   the lock cannot be interrupted.
///
/// All attach by a descriptor. A descriptor of another process is copied by
/// pidfd_getfd(2) for a moment, which takes ptrace rights over that process.
///
/// Only the process that made it can use it: in a child of fork(2) every call fails.
#[must_use]
pub struct EpollIter {
    reader: Box<dyn Reader<EpollItem>>,
    selection: Selection,
    retry: Retry,
}

impl EpollIter {
    /// Options other than the defaults.
    pub fn options() -> Options<EpollItem> {
        Options::new()
    }

    /// Attaches to an epoll set of this process, with the best backend that works.
    ///
    /// # Errors
    ///
    /// [`Error::NotAnEpoll`](crate::Error::NotAnEpoll) if the descriptor is
    /// something else (EOPNOTSUPP), [`Error::NoBackend`](crate::Error::NoBackend)
    /// if none can serve.
    pub fn attach(set: impl AsFd) -> Result<Self> {
        Self::options().attach(set)
    }

    /// Attaches to the epoll set that is descriptor `fd` of process `pid`, in
    /// the caller's pid namespace.
    ///
    /// # Errors
    ///
    /// As [`EpollIter::attach`], and
    /// [`Error::NoSuchProcess`](crate::Error::NoSuchProcess) (ESRCH),
    /// [`Error::NoSuchDescriptor`](crate::Error::NoSuchDescriptor) (EBADF),
    /// [`Error::NotPermitted`](crate::Error::NotPermitted) (EPERM).
    pub fn attach_pid(pid: u32, fd: i32) -> Result<Self> {
        Self::options().attach_pid(pid, fd)
    }

    fn open(locator: Locator, options: Options<EpollItem>) -> Result<Self> {
        let (reader, selection, retry) = options.open(EpollItem::TABLE, locator)?;
        Ok(Self {
            reader,
            selection,
            retry,
        })
    }

    /// The backend in use, and why the preferred ones are not.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Reads all items, and tries again within the bounds of
    /// [`Retry`](crate::Retry) where the set is busy.
    ///
    /// # Errors
    ///
    /// [`Error::Contended`](crate::Error::Contended), which is retryable, if
    /// the set kept changing (TaskFile alone).
    /// [`Error::EpollGone`](crate::Error::EpollGone) (ENXIO).
    pub fn snapshot(&mut self) -> Result<Snapshot<'_, EpollItem>> {
        self.reader.read(How::Consistent, 0, &self.retry)
    }

    /// Reads once, without lock or proof, for a set whose lock is stuck or too
    /// busy: [`Consistency::Raw`](crate::Consistency::Raw). Items may be missing, doubled or torn if the
    /// set changes meanwhile. The Native backend reads it as TaskFile does, and
    /// [`Snapshot::backend`] says so; with fdinfo it is the same as
    /// [`EpollIter::snapshot`].
    ///
    /// # Errors
    ///
    /// [`Error::Contended`](crate::Error::Contended), which is retryable, if
    /// items were removed while they were read.
    /// [`Error::EpollGone`](crate::Error::EpollGone) (ENXIO).
    pub fn snapshot_raw(&mut self) -> Result<Snapshot<'_, EpollItem>> {
        self.reader.read(How::Raw, 0, &self.retry)
    }
}

impl fmt::Debug for EpollIter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpollIter")
            .field("backend", &self.selection().backend)
            .finish_non_exhaustive()
    }
}
