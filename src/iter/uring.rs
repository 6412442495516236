//! A table of one ring.

use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::backend::select;
#[cfg(not(feature = "bpf"))]
use crate::backend::select::NotOpened;
use crate::choice::{Backend, Selection};
use crate::error::Result;
use crate::iter::engine::{read_text, Engine};
use crate::locator::Locator;
#[cfg(feature = "bpf")]
use crate::record::BufFields;
use crate::record::{Consistency, Snapshot};
use crate::record::{Dumped, RegisteredBuf, RingRecord};
use crate::retry::Retry;
use crate::ring::Ring;

#[cfg(feature = "bpf")]
use crate::backend::{locked::Locked, native::Native, task_file::Walker};
#[cfg(feature = "bpf")]
use crate::iter::engine::{read_native, walk, walker_of};
#[cfg(feature = "bpf")]
use crate::record::wire::Mode;

/// How an iterator is to work.
#[derive(Debug, Clone)]
#[must_use]
pub struct Options<R = RegisteredBuf> {
    backend: Backend,
    retry: Retry,
    _record: PhantomData<fn() -> R>,
}

impl<R: Dumped> Options<R> {
    pub(crate) fn new() -> Self {
        Self {
            backend: Backend::default(),
            retry: Retry::default(),
            _record: PhantomData,
        }
    }

    /// The backend; [`Backend::Auto`] if not set.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// How long to try for a consistent view.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }
}

impl<R: RingRecord> Options<R> {
    /// See [`UringIter::attach`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn attach(self, ring: impl AsFd) -> Result<UringIter<R>> {
        let address = Locator::of_fd(ring.as_fd())?;
        UringIter::open(address, self)
    }

    /// See [`UringIter::attach_pid`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn attach_pid(self, pid: u32, fd: i32) -> Result<UringIter<R>> {
        let address = Locator::of_process(pid, fd)?;
        UringIter::open(address, self)
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
pub struct UringIter<R: Dumped> {
    pub(super) engine: Engine<R>,
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
}

/// Also what [`BufPages`](crate::BufPages) is made of.
impl<R: Dumped> UringIter<R> {
    pub(super) fn open(address: Locator, options: Options<R>) -> Result<Self> {
        let (engine, selection) = select::select(options.backend, |backend| match backend {
            #[cfg(feature = "bpf")]
            Backend::Native => Ok(Engine::Native(Box::new((
                Native::open(address.clone())?,
                None,
            )))),
            #[cfg(feature = "bpf")]
            Backend::TaskFile => Ok(Engine::TaskFile(Box::new((
                Walker::open(address.clone())?,
                Locked::default(),
            )))),
            #[cfg(not(feature = "bpf"))]
            Backend::Native | Backend::TaskFile => Err(NotOpened::Refused(select::refuse_bpf())),
            Backend::Fdinfo | Backend::Auto => R::by_fdinfo(address.clone()).map(Engine::Fdinfo),
        })?;
        Ok(Self {
            engine,
            selection,
            retry: options.retry,
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
        let address = Locator::of_ring(ring);
        let attached = match &mut self.engine {
            #[cfg(feature = "bpf")]
            Engine::Native(engine) => {
                let attached = engine.0.attach(address);
                if attached.is_ok() {
                    engine.1 = None;
                }
                attached
            }
            #[cfg(feature = "bpf")]
            Engine::TaskFile(engine) => engine.0.attach(address),
            Engine::Fdinfo(reader) => R::by_fdinfo(address).map(|opened| *reader = opened),
        };
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
        self.look(Consistency::Verified, 0)
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
    /// child's: to attach it anew takes longer than all the rest of a read.
    ///
    /// # Errors
    ///
    /// [`Error::Contended`](crate::Error::Contended), which is retryable, if the lock could not be had
    /// in time. [`Error::Unsupported`](crate::Error::Unsupported) before Linux 6.13, and for a ring
    /// without a descriptor. [`Error::NotPermitted`](crate::Error::NotPermitted) without ptrace rights
    /// (EPERM). [`Error::RingGone`](crate::Error::RingGone) (ENXIO).
    pub fn snapshot_locked(&mut self, limit: Duration) -> Result<Snapshot<'_, R>> {
        self.look_locked(limit, 0)
    }

    pub(crate) fn look_locked(&mut self, limit: Duration, _which: u64) -> Result<Snapshot<'_, R>> {
        let retry = Retry {
            attempts: u32::MAX,
            deadline: limit,
            ..self.retry
        };
        match &mut self.engine {
            #[cfg(feature = "bpf")]
            Engine::Native(engine) => read_native(engine, retry, _which),
            #[cfg(feature = "bpf")]
            Engine::TaskFile(engine) => {
                let (walker, locked) = &mut **engine;
                let nr = locked.walk(walker, limit, _which)?;
                Ok(Snapshot {
                    records: locked.records(nr)?,
                    consistency: Consistency::Locked,
                    backend: Backend::TaskFile,
                    unknown: BufFields::empty(),
                    attempts: 1,
                })
            }
            Engine::Fdinfo(reader) => read_text(&mut **reader, retry),
        }
    }

    /// Looks at the table once, without lock or proof: what is there when
    /// nothing better can be had, say because the owner of `uring_lock` is
    /// stuck. Labelled [`Consistency::Raw`](crate::Consistency::Raw). With Native it is
    /// the look of TaskFile, and says so ([`Snapshot::backend`]); with fdinfo
    /// it is the same as [`UringIter::snapshot`].
    ///
    /// # Errors
    ///
    /// [`Error::Contended`](crate::Error::Contended), which is retryable, if the table was just being
    /// taken down. [`Error::RingGone`](crate::Error::RingGone) (ENXIO).
    pub fn snapshot_raw(&mut self) -> Result<Snapshot<'_, R>> {
        self.look(Consistency::Raw, 0)
    }

    /// A look that waits for no lock. Only TaskFile has several kinds.
    pub(crate) fn look(&mut self, _wanted: Consistency, _which: u64) -> Result<Snapshot<'_, R>> {
        let retry = self.retry;
        match &mut self.engine {
            #[cfg(feature = "bpf")]
            Engine::Native(engine) => match _wanted {
                Consistency::Raw => walk(walker_of(engine)?, retry, Mode::Raw, _which),
                _ => read_native(engine, retry, _which),
            },
            #[cfg(feature = "bpf")]
            Engine::TaskFile(engine) => {
                let mode = match _wanted {
                    Consistency::Raw => Mode::Raw,
                    _ => Mode::Verified,
                };
                walk(&mut engine.0, retry, mode, _which)
            }
            Engine::Fdinfo(reader) => read_text(&mut **reader, retry),
        }
    }
}

impl<R: Dumped> std::fmt::Debug for UringIter<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UringIter")
            .field("backend", &self.selection.backend)
            .finish_non_exhaustive()
    }
}
