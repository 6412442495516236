//! Links of native iterators: to be kept, pinned, handed on, and read as a stream
//! of records.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use zerocopy::IntoBytes;

use crate::backend::bpf::link;
use crate::backend::facts::LinkInfo;
use crate::backend::Record;
use crate::error::{Error, Result};
use crate::locator::Name;
use crate::retry::Retry;

/// A link of a native iterator to one ring or, with
/// [`EpollItem`](crate::EpollItem), to one epoll set.
///
/// It does not keep that ring or set alive. Each iterator of the link
/// ([`Link::records`]) gives the records of the table as a stream, for tables
/// without a bound or for another process: unlike a
/// [`UringIter`](crate::UringIter), a link can be pinned. Each read(2) takes the
/// lock again, so the records of a stream are of several moments.
///
/// Needs a kernel with the patches in kernel/, and `CAP_BPF` with
/// `CAP_PERFMON`, or `CAP_SYS_ADMIN`, to attach.
#[must_use]
pub struct Link<R> {
    fd: OwnedFd,
    _record: PhantomData<fn() -> R>,
}

impl<R: Record> Link<R> {
    /// Attaches to the ring or the epoll set behind a descriptor. The link does
    /// not keep the descriptor.
    ///
    /// # Errors
    ///
    /// [`Error::NotARing`] or [`Error::NotAnEpoll`] (EOPNOTSUPP),
    /// [`Error::RingGone`] (ENXIO) for a ring that is being closed, [`Error::NoBackend`] if the kernel lacks the
    /// patches or the caller the capabilities (EPERM), [`Error::LinkRefused`]
    /// (EINVAL, E2BIG).
    pub fn attach(ring: impl AsFd) -> Result<Self> {
        link::attach(&R::TABLE.bpf, ring.as_fd()).map(Self::of)
    }

    /// Opens a link that [`Link::pin`] has put there. Its iterator target is
    /// checked here; whether it runs a program of this library is checked by the
    /// records that it gives.
    ///
    /// # Errors
    ///
    /// [`Error::WrongLink`] if it is something else, [`Error::Os`] with the
    /// errno of bpf(2) `BPF_OBJ_GET` (ENOENT, EPERM).
    pub fn open_pinned(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let fd = link::open_pinned(path)?;
        let wanted = link::target(&R::TABLE.bpf);
        let found = match link::info(fd.as_fd()) {
            Ok(Some(info)) if info.target == wanted => return Ok(Self::of(fd)),
            Ok(Some(info)) => format!("it is a link of {}", info.target),
            Ok(None) => "it is a link of another kind".into(),
            Err(e) => format!("it is not a link ({e})"),
        };
        Err(Error::WrongLink {
            path: path.into(),
            wanted,
            found,
        })
    }

    /// Gives the link a name in a BPF file system (`/sys/fs/bpf`): it stays
    /// until that is removed.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] with the errno of bpf(2) `BPF_OBJ_PIN`: EEXIST, EPERM,
    /// ENOENT, and EINVAL outside a BPF file system.
    pub fn pin(&self, path: impl AsRef<Path>) -> Result<()> {
        link::pin(self.fd.as_fd(), path.as_ref())
    }

    /// The facts that the kernel gives about the link, also after its ring or epoll
    /// set has gone.
    ///
    /// # Errors
    ///
    /// [`Error::Os`].
    pub fn info(&self) -> Result<LinkInfo> {
        let info = link::info(self.fd.as_fd())?;
        info.ok_or_else(|| Error::malformed("a link", "it is not of an iterator"))
    }

    /// A new iterator of the link: all records, from the first.
    ///
    /// # Errors
    ///
    /// [`Error::RingGone`], [`Error::EpollGone`] (ENXIO).
    pub fn records(&self) -> Result<Records<R>> {
        let name = self.name()?;
        let fd = link::iterate(self.fd.as_fd(), name)?;
        Ok(Records::new(fd, name))
    }

    fn name(&self) -> Result<Name> {
        let info = self.info()?;
        Ok(match info.ep_id {
            Some(id) => Name::EpollId(id),
            None => Name::Ring(info.inode),
        })
    }

    fn of(fd: OwnedFd) -> Self {
        Self {
            fd,
            _record: PhantomData,
        }
    }
}

impl<R> AsFd for Link<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<R> fmt::Debug for Link<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link").field(&self.fd.as_raw_fd()).finish()
    }
}

/// `STREAM_END` in bpf/record.h: no record has such flags, or is of such a kind.
const STREAM_END: u8 = 0xff;

/// Records that there is room for in one read: as many bytes as the kernel
/// gives at most.
const BUFFER_BYTES: usize = 64 << 10;

/// One iterator of a [`Link`]: the records of its table, in batches.
///
/// As a file it gives the bytes of the records, one after another, and after the
/// last one a record's length of bytes with all bits set.
#[must_use]
pub struct Records<R> {
    fd: OwnedFd,
    name: Name,
    retry: Retry,
    /// Records that were read and not lent yet, from the start, and after the
    /// whole ones the first bytes of the next.
    buf: Box<[R]>,
    /// Bytes of the buffer that were lent, and that were filled.
    lent: usize,
    filled: usize,
    /// Records that were lent before.
    before: usize,
    /// The end of the stream was seen.
    ended: bool,
}

impl<R: Record> Records<R> {
    fn new(fd: OwnedFd, name: Name) -> Self {
        let len = BUFFER_BYTES / size_of::<R>();
        Self {
            fd,
            name,
            retry: Retry::default(),
            buf: (0..len).map(|_| R::new_zeroed()).collect(),
            lent: 0,
            filled: 0,
            before: 0,
            ended: false,
        }
    }

    /// Sets the bounds of trying to take the lock of the ring, for each read.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// The next records, `None` at the end. The records of one batch are of one
    /// moment, unless the kernel cut one in half.
    ///
    /// # Errors
    ///
    /// [`Error::Contended`] (EDEADLK), which is retryable: nothing is lost,
    /// and the next call goes on from the same place. For an epoll set the call
    /// waits for the lock instead, unless somebody has set `O_NONBLOCK` (EAGAIN).
    /// [`Error::RingGone`], [`Error::EpollGone`] (ENXIO).
    /// [`Error::Malformed`] if the stream ends before its end or goes on after
    /// it, or if a record makes no sense, as with a pinned link that runs a program
    /// of another library.
    pub fn next_batch(&mut self) -> Result<Option<&[R]>> {
        if self.ended {
            return Ok(None);
        }
        let size = size_of::<R>();
        let bytes = self.buf.as_mut_bytes();
        bytes.copy_within(self.lent..self.filled, 0);
        self.filled -= self.lent;
        self.before += self.lent / size;
        self.lent = 0;
        while self.filled < size {
            let (fd, name) = (&self.fd, self.name);
            let room = &mut bytes[self.filled..];
            let (nr, _) = self.retry.run(name, || link::read(fd, room, name))?;
            if nr == 0 {
                return Err(Error::malformed(
                    "a native iterator",
                    format!(
                        "it ended after {} records and {} bytes, without its last words: \
                         a pinned link of another program?",
                        self.before, self.filled
                    ),
                ));
            }
            self.filled += nr;
        }
        let mut whole = self.filled / size;
        // Nothing may follow it: with more behind it, it is a record that makes
        // no sense.
        let last = &bytes[(whole - 1) * size..self.filled];
        if last.len() == size && last.iter().all(|&byte| byte == STREAM_END) {
            self.ended = true;
            whole -= 1;
        }
        let records = &self.buf[..whole];
        link::check(&R::TABLE.bpf, records, self.before)
            .map_err(|what| Error::malformed("a native iterator", what))?;
        self.lent = whole * size;
        match records {
            [] => Ok(None),
            records => Ok(Some(records)),
        }
    }
}

impl<R> AsFd for Records<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<R> fmt::Debug for Records<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("fd", &self.fd.as_raw_fd())
            .field("before", &self.before)
            .finish_non_exhaustive()
    }
}
