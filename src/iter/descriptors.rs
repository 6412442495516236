//! The open descriptors of a process, to see which of them are registered files as
//! well.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;

use rustix::fs::{statx, AtFlags, StatxFlags, CWD};

use crate::backend::bpf::Lister;
use crate::backend::select::NotOpened;
use crate::choice::Backend;
use crate::error::{Error, Result};
use crate::record::{EpollItem, FileIdentity, FileKind};
use crate::tasks::descriptor_tables;

/// Reads which files a process has open, of one process after another.
///
/// ```no_run
/// use uring_bpf_iter::{DescriptorReader, RingFinder, UringFileIter};
///
/// # fn main() -> uring_bpf_iter::Result<()> {
/// let mut reader = DescriptorReader::new()?;
/// for ring in &RingFinder::new()?.find_all()? {
///     let descriptors = reader.read_thread(ring.owner().tid)?;
///     for slot in UringFileIter::attach_ring(ring)?.snapshot()?.iter() {
///         let Some(file) = slot.file() else { continue };
///         println!("{}: also {:?}", slot.index(), descriptors.of(file));
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// It needs what the TaskFile backend needs, see [`UringIter`](crate::UringIter), and
/// like an iterator it is of use only in the process that made it.
#[must_use]
pub struct DescriptorReader(Lister);

impl DescriptorReader {
    /// Loads the program.
    ///
    /// # Errors
    ///
    /// [`Error::NoBackend`] if the kernel refuses it.
    pub fn new() -> Result<Self> {
        Lister::open().map(Self).map_err(refused)
    }

    /// The open descriptors of a process, in the caller's pid namespace: those of its
    /// leader, or, if that has ended, of the first thread that has not. (A thread may
    /// have others: [`DescriptorReader::read_thread`].) A process that has ended has
    /// none, which is not an error.
    ///
    /// # Errors
    ///
    /// As [`DescriptorReader::read_thread`].
    pub fn read(&mut self, pid: u32) -> Result<Descriptors> {
        let mut descriptors = self.read_thread(pid)?;
        if descriptors.by_file.is_empty() {
            for tid in descriptor_tables(pid).unwrap_or_default() {
                descriptors = self.read_thread(tid)?;
                if !descriptors.by_file.is_empty() {
                    break;
                }
            }
        }
        Ok(descriptors)
    }

    /// The open descriptors of a thread, in the caller's pid namespace: those of its
    /// process, if it shares them. A thread that has ended has none, which is not an
    /// error.
    ///
    /// They are read at another moment than a snapshot. If a file is closed
    /// between the two and another one takes its place in kernel memory, only
    /// their inodes tell them apart.
    ///
    /// # Errors
    ///
    /// [`Error::NoBackend`] and [`Error::Os`] if there is no room for so many.
    pub fn read_thread(&mut self, tid: u32) -> Result<Descriptors> {
        let mut by_file: HashMap<_, Vec<RawFd>> = HashMap::new();
        let mut numbers = HashSet::new();
        for one in self.0.list(tid).map_err(refused)? {
            numbers.insert(one.fd);
            by_file.entry(one.file).or_default().push(one.fd);
        }
        Ok(Descriptors {
            tid,
            by_file,
            numbers,
        })
    }
}

fn refused(error: NotOpened) -> Error {
    error.of(Backend::TaskFile)
}

impl fmt::Debug for DescriptorReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DescriptorReader").finish_non_exhaustive()
    }
}

/// The descriptors of one thread at one moment, by the file that they are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptors {
    tid: u32,
    by_file: HashMap<(u64, u64), Vec<RawFd>>,
    numbers: HashSet<RawFd>,
}

/// The state of a number that an epoll set has for one of its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NumberNow {
    /// The number is that file still.
    SameFile,
    /// The number is another file.
    OtherFile,
    /// The number is not an open descriptor.
    Closed,
}

impl fmt::Display for NumberNow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::SameFile => "same file",
            Self::OtherFile => "another file",
            Self::Closed => "closed",
        })
    }
}

impl Descriptors {
    /// The thread whose descriptors they are, in the caller's pid namespace: of a
    /// process mostly the leader, whose number is that of the process.
    pub fn tid(&self) -> u32 {
        self.tid
    }

    /// The numbers under which it has this file open, lowest first;
    /// none for a direct descriptor.
    pub fn of(&self, file: &FileIdentity) -> &[RawFd] {
        self.by_file.get(&file.key()).map_or(&[], Vec::as_slice)
    }

    /// True if there is none: the thread has ended, or was never there.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// True if this is the number of an open descriptor.
    pub fn contains(&self, fd: RawFd) -> bool {
        self.numbers.contains(&fd)
    }

    /// The state of the number under which the file of an item was added to an epoll set:
    /// for the descriptors of a thread that holds the set, which need not be the one that
    /// added it. `None` if that is not known: for an item that fdinfo has shown, and if
    /// there are no descriptors.
    pub fn now(&self, item: &EpollItem) -> Option<NumberNow> {
        if item.file().kind() == FileKind::Unknown || self.is_empty() {
            return None;
        }
        Some(if self.of(item.file()).contains(&item.fd()) {
            NumberNow::SameFile
        } else if self.contains(item.fd()) {
            NumberNow::OtherFile
        } else {
            NumberNow::Closed
        })
    }

    /// The path of a file that it has open, by the link `/proc/TID/fd/N`; `None` if it
    /// does not have it open.
    ///
    /// # Errors
    ///
    /// Those of readlink(2): ENOENT if it was closed meanwhile, even if the
    /// number is another file by now, and EACCES.
    pub fn path(&self, file: &FileIdentity) -> Option<io::Result<PathBuf>> {
        self.look(file, |link| fs::read_link(link))
    }

    /// Major and minor number of the device that stat(2) tells (`st_dev`), by the link
    /// `/proc/PID/fd/N`; `None` if the process does not have the file open. The server of
    /// a network file system is not asked (`AT_STATX_DONT_SYNC`).
    ///
    /// # Errors
    ///
    /// Those of statx(2), and ENOENT as for [`Descriptors::path`].
    pub fn stat_device(&self, file: &FileIdentity) -> Option<io::Result<(u32, u32)>> {
        self.look(file, |link| {
            let stat = statx(CWD, link, AtFlags::STATX_DONT_SYNC, StatxFlags::empty())?;
            Ok((stat.stx_dev_major, stat.stx_dev_minor))
        })
    }

    /// The result of a look through a link to the file, if that is still one to it after
    /// the look.
    fn look<T>(
        &self,
        file: &FileIdentity,
        see: impl FnOnce(&str) -> io::Result<T>,
    ) -> Option<io::Result<T>> {
        let fd = self.of(file).first()?;
        let (link, info) = (
            format!("/proc/{}/fd/{fd}", self.tid),
            format!("/proc/{}/fdinfo/{fd}", self.tid),
        );
        Some(see(&link).and_then(|seen| {
            // The number of the inode itself; stat(2) may tell another.
            let info = fs::read(info)?;
            let lines = info.split(|&byte| byte == b'\n');
            let ino = (lines.map(String::from_utf8_lossy))
                .find_map(|line| line.strip_prefix("ino:").map(|ino| ino.trim().parse()));
            match ino.map(|ino| ino == Ok(file.inode())) {
                // Before Linux 5.14, which no program of ours runs on.
                Some(true) | None => Ok(seen),
                Some(false) => Err(io::ErrorKind::NotFound.into()),
            }
        }))
    }
}
