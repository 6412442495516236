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

/// The registered files of one ring, including direct descriptors:
/// [`UringIter`] of [`RegisteredFile`], with the backends TaskFile and Native.
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
    /// The open descriptors of the process that the ring was attached by (the
    /// first holder of a ring that was found), to see which of them are
    /// registered files as well.
    ///
    /// They are read at another moment than a snapshot. If a file is closed
    /// between the two and another one takes its place in kernel memory, only
    /// their inodes tell them apart.
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

    /// The path of the file in slot `index`, as the kernel prints it for the
    /// caller: `None` for an empty slot, with ` (deleted)` at the end for a file
    /// whose name was removed, `socket:[123]` and the like for a file without a
    /// path.
    ///
    /// Only the Native backend can do this, because bpf_d_path takes only a file
    /// that the kernel trusts. With TaskFile, [`Descriptors::path`] works for a
    /// file that also has a descriptor.
    ///
    /// The result is about the file that is in the slot now; an earlier record of
    /// the slot may be about another file. Each call walks the table.
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

    /// The path of a file that the process has open, by the link `/proc/PID/fd/N`;
    /// `None` if the process does not have it open.
    ///
    /// # Errors
    ///
    /// Those of readlink(2): ENOENT if it was closed meanwhile, even if the
    /// number is another file by now, and EACCES.
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
