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

/// The items of one epoll set, as often as wanted, in the kernel's order: by
/// the address of the file and the number that it was added under.
///
/// It remembers which set it is, not a descriptor: it never keeps a set alive,
/// and when that goes, or its number becomes another file, the next snapshot
/// says [`Error::EpollGone`](crate::Error::EpollGone). With Native that is
/// exact. With TaskFile a set is known by its process, its number and its
/// place in kernel memory; a later set under the same number that happens to
/// get the same place is taken for it. With Fdinfo any epoll set under the
/// same number is.
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
/// All wait for `ep->mtx`, but for TaskFile. It is held for a moment by each
/// epoll_ctl(2) on the set, and by each epoll_wait(2) that has events to
/// deliver; longer only by one that waits for a page fault of its process.
///
/// - Native (the patches in kernel/, and the capabilities of TaskFile) takes
///   `ep->mtx` and reads all items under one hold of it
///   ([`Consistency::Locked`](crate::Consistency::Locked)). The wait for it can be interrupted by a signal
///   that ends the process, and has no other limit: [`Retry`](crate::Retry)
///   does not bound it, and there is no EDEADLK.
/// - TaskFile (Linux 6.1, `CAP_BPF` with `CAP_PERFMON`, or `CAP_SYS_ADMIN`)
///   reads without the lock and waits for nobody
///   ([`Consistency::Verified`](crate::Consistency::Verified)): a set whose lock is seldom free for as long
///   as two walks take is [`Error::Contended`](crate::Error::Contended).
/// - Fdinfo (no privilege for your own processes) does not tell which files
///   the items are for, only their inodes
///   ([`FileKind::Unknown`](crate::FileKind::Unknown)). The kernel's wait for
///   the lock cannot be interrupted.
///
/// All attach by a descriptor: that of another process is copied by
/// pidfd_getfd(2) for a moment, which takes ptrace rights over it.
///
/// It belongs to the process that made it: a child of fork(2) cannot use it.
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

    /// Attaches to an epoll set of this process, by the best backend there is.
    ///
    /// # Errors
    ///
    /// [`Error::NotAnEpoll`](crate::Error::NotAnEpoll) if the descriptor is
    /// something else (EOPNOTSUPP), [`Error::NoBackend`](crate::Error::NoBackend)
    /// if none can serve.
    pub fn attach(set: impl AsFd) -> Result<Self> {
        Self::options().attach(set)
    }

    /// Attaches to the epoll set that is descriptor `fd` of process `pid`, a
    /// number of the caller's pid namespace.
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

    /// Which backend serves, and why better ones do not.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Reads all items, and tries again within the bounds of
    /// [`Retry`](crate::Retry) where the set is busy.
    ///
    /// # Errors
    ///
    /// [`Error::Contended`](crate::Error::Contended), which is retryable, if
    /// the set would not hold still (TaskFile alone).
    /// [`Error::EpollGone`](crate::Error::EpollGone) (ENXIO).
    pub fn snapshot(&mut self) -> Result<Snapshot<'_, EpollItem>> {
        self.reader.read(How::Consistent, 0, &self.retry)
    }

    /// Looks once, without lock or proof, for a set whose lock is stuck or too
    /// busy: [`Consistency::Raw`](crate::Consistency::Raw). Items may be missing, doubled or torn if the
    /// set changes meanwhile. With Native it is the look of TaskFile, and says
    /// so ([`Snapshot::backend`]); with fdinfo it is the same as
    /// [`EpollIter::snapshot`].
    ///
    /// # Errors
    ///
    /// [`Error::Contended`](crate::Error::Contended), which is retryable, if
    /// items went while they were read.
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
