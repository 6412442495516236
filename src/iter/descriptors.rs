//! The open descriptors of a process, to see which of them are registered files as
//! well.

use std::collections::HashMap;
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
use crate::record::FileIdentity;

/// Reads which files a process has open, of one process after another.
///
/// ```no_run
/// use uring_bpf_iter::{DescriptorReader, RingFinder, UringFileIter};
///
/// # fn main() -> uring_bpf_iter::Result<()> {
/// let mut reader = DescriptorReader::new()?;
/// for ring in &RingFinder::new()?.find_all()? {
///     let descriptors = reader.read(ring.owner().pid)?;
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

    /// The open descriptors of a process, in the caller's pid namespace. A process
    /// that has ended has none, which is not an error.
    ///
    /// They are read at another moment than a snapshot. If a file is closed
    /// between the two and another one takes its place in kernel memory, only
    /// their inodes tell them apart.
    ///
    /// # Errors
    ///
    /// [`Error::NoBackend`] and [`Error::Os`] if there is no room for so many.
    pub fn read(&mut self, pid: u32) -> Result<Descriptors> {
        let mut by_file: HashMap<_, Vec<RawFd>> = HashMap::new();
        for one in self.0.list(pid).map_err(refused)? {
            by_file.entry(one.file).or_default().push(one.fd);
        }
        Ok(Descriptors { pid, by_file })
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

/// The descriptors of one process at one moment, by the file that they are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptors {
    pid: u32,
    by_file: HashMap<(u64, u64), Vec<RawFd>>,
}

impl Descriptors {
    /// The process, in the caller's pid namespace.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The numbers under which the process has this file open, lowest first;
    /// none for a direct descriptor.
    pub fn of(&self, file: &FileIdentity) -> &[RawFd] {
        self.by_file.get(&file.key()).map_or(&[], Vec::as_slice)
    }

    /// The path of a file that the process has open, by the link `/proc/PID/fd/N`;
    /// `None` if the process does not have it open.
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

    /// What is seen through a link to the file, if it is still one to it after that.
    fn look<T>(
        &self,
        file: &FileIdentity,
        see: impl FnOnce(&str) -> io::Result<T>,
    ) -> Option<io::Result<T>> {
        let fd = self.of(file).first()?;
        let (link, info) = (
            format!("/proc/{}/fd/{fd}", self.pid),
            format!("/proc/{}/fdinfo/{fd}", self.pid),
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
