//! The registered files of a ring, and who else has them.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;

use crate::backend::bpf;
use crate::choice::Backend;
use crate::error::{Error, Limitation, Operation, Result};
use crate::iter::UringIter;
use crate::record::{FileIdentity, RegisteredFile};

/// The registered files of one ring, direct descriptors among them:
/// [`UringIter`] of [`RegisteredFile`]. By the backends TaskFile and Native.
///
/// ```no_run
/// use uring_bpf_iter::UringFileIter;
///
/// # fn main() -> uring_bpf_iter::Result<()> {
/// let mut iter = UringFileIter::attach_pid(1234, 7)?;
/// let descriptors = iter.descriptors()?;
/// for slot in iter.snapshot()?.iter() {
///     let Some(file) = slot.file() else { continue };
///     println!("{}: {}, also {:?}", slot.index(), file.kind(), descriptors.of(file));
/// }
/// # Ok(())
/// # }
/// ```
pub type UringFileIter = UringIter<RegisteredFile>;

impl UringFileIter {
    /// The descriptors of the process that the ring was attached by, to see
    /// which of them are registered files, too; of the first holder, for a
    /// ring that was found.
    ///
    /// They are of another moment than a snapshot: a file that was closed and
    /// one that was opened in its place between the two can be told apart
    /// only by their inodes.
    ///
    /// # Errors
    ///
    /// [`Error::NoBackend`] if the kernel refuses the program,
    /// [`Error::Unsupported`] with the fdinfo backend. A process that has ended has no
    /// descriptors, which is not an error.
    pub fn descriptors(&mut self) -> Result<Descriptors> {
        let backend = self.selection().backend;
        if backend == Backend::Fdinfo {
            return Err(Error::Unsupported {
                backend,
                what: Operation::ListDescriptors,
                why: Limitation::NeedsBpf,
            });
        }
        let pid = self.reader.locator().places[0].pid;
        let mut by_file: HashMap<_, Vec<RawFd>> = HashMap::new();
        let listed = bpf::list_descriptors(pid).map_err(|e| e.of(backend))?;
        for one in listed {
            by_file.entry(one.file).or_default().push(one.fd);
        }
        Ok(Descriptors { pid, by_file })
    }

    /// The path of the file in slot `index`, as the kernel tells it to the
    /// caller: `None` for an empty slot; ` (deleted)` at its end for a file
    /// without a name, `socket:[123]` and the like for files that have none.
    ///
    /// Only the Native backend can, for it takes a file that the kernel
    /// vouches for (bpf_d_path). With TaskFile, [`Descriptors::path`] can for
    /// a file that also has a descriptor.
    ///
    /// It is the file that is in the slot now, which a record of before may not
    /// be of. Each call walks the table.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] with another backend, [`Error::Contended`],
    /// [`Error::RingGone`] (ENXIO), [`Error::Os`] with ENAMETOOLONG for a path
    /// of more than 4,095 bytes.
    pub fn path(&mut self, index: u64) -> Result<Option<PathBuf>> {
        self.reader.path(index, &self.retry)
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

    /// The path of a file that the process has open, `None` if it has not: the
    /// link `/proc/PID/fd/N`.
    ///
    /// # Errors
    ///
    /// Those of readlink(2): ENOENT if it was closed meanwhile, also if the
    /// number is that of another file by now, EACCES.
    pub fn path(&self, file: &FileIdentity) -> Option<io::Result<PathBuf>> {
        let fd = self.of(file).first()?;
        let (link, info) = (
            format!("/proc/{}/fd/{fd}", self.pid),
            format!("/proc/{}/fdinfo/{fd}", self.pid),
        );
        Some(fs::read_link(link).and_then(|path| {
            // The number of the inode itself; stat(2) may tell another.
            let info = fs::read_to_string(info)?;
            let ino = info.lines().find_map(|line| line.strip_prefix("ino:"));
            match ino.map(|ino| ino.trim().parse() == Ok(file.inode())) {
                // Before Linux 5.14, which no program of ours runs on.
                Some(true) | None => Ok(path),
                Some(false) => Err(io::ErrorKind::NotFound.into()),
            }
        }))
    }
}
