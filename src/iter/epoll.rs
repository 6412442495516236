//! The items of one epoll set.

use std::fmt;
use std::os::fd::AsFd;

use crate::backend::{How, Reader, Record};
use crate::choice::{Refusal, Selection};
use crate::epoll::EpollSet;
use crate::error::{Error, Result};
use crate::iter::options::Options;
use crate::iter::tables::Tables;
use crate::locator::{Locator, EPOLL};
use crate::record::{EpollItem, Snapshot};
use crate::retry::Retry;
use crate::tasks::{process_of, with_descriptor};

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
        let locator = match Locator::of_process_epoll(pid, fd) {
            // Its leader has ended, or a thread with a table of descriptors that it does not
            // share has the set.
            Err(Error::NoSuchProcess { .. } | Error::NoSuchDescriptor { .. }) => {
                let (tid, _) = with_descriptor(pid, fd, EPOLL)?;
                Locator::of_thread_epoll(pid, tid, fd)
            }
            other => other,
        };
        EpollIter::open(locator?, self)
    }

    /// See [`EpollIter::attach_tid`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn attach_tid(self, tid: u32, fd: i32) -> Result<EpollIter> {
        let pid = process_of(tid)?;
        EpollIter::open(Locator::of_thread_epoll(pid, tid, fd)?, self)
    }

    /// See [`EpollIter::attach_set`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn attach_set(self, set: &EpollSet) -> Result<EpollIter> {
        EpollIter::open(Locator::of_set(set), self)
    }

    /// See [`EpollReader::new`].
    pub fn epoll_reader(self) -> EpollReader {
        EpollReader {
            tables: Tables::new(self),
        }
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
/// pidfd_getfd(2) for a moment, which takes ptrace rights over that process; with
/// TaskFile and Fdinfo, [`EpollIter::attach_tid`] takes rights to read
/// `/proc/PID/task/TID/fd` instead, and [`EpollIter::attach_set`] takes none.
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
    /// the caller's pid namespace: of its leader, or, if that has ended, of the
    /// first of its threads that has such a descriptor.
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

    /// Attaches to the epoll set that is descriptor `fd` of thread `tid`, in the caller's
    /// pid namespace: for a thread with a descriptor table that it does not share with the
    /// leader of its process, or that has outlived that leader.
    ///
    /// # Errors
    ///
    /// As [`EpollIter::attach_pid`]. The Native backend needs Linux 6.9 for such a thread
    /// (`PIDFD_THREAD`).
    pub fn attach_tid(tid: u32, fd: i32) -> Result<Self> {
        Self::options().attach_tid(tid, fd)
    }

    /// Attaches to an epoll set that [`EpollFinder`](crate::EpollFinder) has found,
    /// through any of its holders. With the TaskFile backend, and with Native if TaskFile
    /// has found it, it is that very set: a number that has gone to another set by now is
    /// [`Error::EpollGone`](crate::Error::EpollGone).
    ///
    /// # Errors
    ///
    /// [`Error::NoBackend`](crate::Error::NoBackend) if none can serve, and
    /// [`Error::EpollGone`](crate::Error::EpollGone) (ENXIO).
    pub fn attach_set(set: &EpollSet) -> Result<Self> {
        Self::options().attach_set(set)
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

/// Reads the items of any epoll set, one after the other.
///
/// It loads its programs for the first set, which takes milliseconds, and keeps them. It
/// keeps nothing for each set. Each is read by the best backend that can serve it;
/// [`Snapshot::backend`] says which that was. Kernel versions and privileges are those of
/// [`EpollIter`], and, as one of those, only the process that made it can use it.
///
/// ```no_run
/// use uring_bpf_iter::{EpollFinder, EpollReader};
///
/// # fn main() -> uring_bpf_iter::Result<()> {
/// let mut reader = EpollReader::new();
/// for set in &EpollFinder::new()?.find_all()? {
///     for item in reader.snapshot(set)?.iter() {
///         println!("{} waits for {}", set.owner().name, item.file().kind());
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct EpollReader {
    tables: Tables<EpollItem>,
}

impl EpollReader {
    /// A reader that uses, for each set, the best backend that works.
    pub fn new() -> Self {
        Self::options().epoll_reader()
    }

    /// Options other than the defaults.
    pub fn options() -> Options<EpollItem> {
        Options::new()
    }

    /// The backends that turned out not to serve here, whatever the set, and why.
    /// [`Error::NoBackend`] takes them with it: after that all are tried again.
    pub fn refused(&self) -> &[Refusal] {
        self.tables.refused()
    }

    /// Reads all items of a set that [`EpollFinder`](crate::EpollFinder) has found, as
    /// [`EpollIter::snapshot`].
    ///
    /// # Errors
    ///
    /// Those of [`EpollIter::attach_set`] and [`EpollIter::snapshot`].
    pub fn snapshot(&mut self, set: &EpollSet) -> Result<Snapshot<'_, EpollItem>> {
        self.tables.read(Locator::of_set(set), How::Consistent)
    }

    /// Reads the items of a set once, without lock or proof, as
    /// [`EpollIter::snapshot_raw`].
    ///
    /// # Errors
    ///
    /// Those of [`EpollIter::attach_set`] and [`EpollIter::snapshot_raw`].
    pub fn snapshot_raw(&mut self, set: &EpollSet) -> Result<Snapshot<'_, EpollItem>> {
        self.tables.read(Locator::of_set(set), How::Raw)
    }
}

impl Default for EpollReader {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for EpollReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpollReader")
            .field("options", self.tables.options())
            .finish_non_exhaustive()
    }
}
