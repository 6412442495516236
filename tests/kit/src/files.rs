//! The table of registered files: what is put into it, and the oracle that says
//! what the kernel should show. Identities come from fstat(2), fcntl(2) and
//! /proc/thread-self/fd, taken while a descriptor exists.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use crate::buf::invalid;
use crate::ring::TestRing;
use crate::submit::Request;
use crate::sys;
use crate::uapi;

/// An open file, as seen from a descriptor of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownFile {
    /// Inode number.
    pub inode: u64,
    /// The device of its file system: major and minor.
    pub device: (u32, u32),
    /// `st_mode`: type and permissions.
    pub mode: u32,
    /// `F_GETFL`: the file's flags, without O_CLOEXEC.
    pub flags: u32,
    /// What /proc/thread-self/fd says it is: a path, `pipe:[1234]`,
    /// `anon_inode:[eventpoll]` and so on.
    pub name: Arc<str>,
    /// The resource tag of the slot, 0 if none.
    pub tag: u64,
}

impl KnownFile {
    /// Asks about a descriptor of this process.
    ///
    /// # Errors
    /// What fstat(2), fcntl(2) and readlink(2) say.
    pub fn of(fd: impl AsFd) -> io::Result<Self> {
        let fd = fd.as_fd();
        let meta = File::from(fd.try_clone_to_owned()?).metadata()?;
        let name = fs::read_link(format!("/proc/thread-self/fd/{}", fd.as_raw_fd()))?;
        Ok(Self {
            inode: meta.ino(),
            device: (libc::major(meta.dev()), libc::minor(meta.dev())),
            mode: meta.mode(),
            flags: sys::file_flags(fd)? & !(libc::O_CLOEXEC as u32),
            name: name.to_string_lossy().into(),
            tag: 0,
        })
    }
}

/// What goes into a run of slots: descriptor and tag, `None` for an empty slot.
pub type FileSlot<'a> = Option<(BorrowedFd<'a>, u64)>;

/// A run of slots in the three forms that are needed.
struct Run {
    fds: Vec<RawFd>,
    tags: Vec<u64>,
    known: Vec<Option<KnownFile>>,
}

impl Run {
    fn new(slots: &[FileSlot<'_>]) -> io::Result<Self> {
        // A table of a million is of few files: each is asked about once in a row.
        let mut last: Option<(RawFd, KnownFile)> = None;
        let mut run = Self {
            fds: Vec::with_capacity(slots.len()),
            tags: Vec::with_capacity(slots.len()),
            known: Vec::with_capacity(slots.len()),
        };
        for slot in slots {
            let Some((fd, tag)) = *slot else {
                run.fds.push(-1);
                run.tags.push(0);
                run.known.push(None);
                continue;
            };
            let raw = fd.as_raw_fd();
            let known = match last.take() {
                Some((number, known)) if number == raw => known,
                _ => KnownFile::of(fd)?,
            };
            run.fds.push(raw);
            run.tags.push(tag);
            run.known.push(Some(KnownFile {
                tag,
                ..known.clone()
            }));
            last = Some((raw, known));
        }
        Ok(run)
    }
}

/// Registered files. The kernel takes its own reference to each: a descriptor
/// may be closed afterwards, and what is left is a direct descriptor, without a
/// number. Tables up to RLIMIT_NOFILE and 1,048,576 slots.
impl TestRing {
    /// The oracle: every slot of the table of registered files.
    pub fn expected_files(&self) -> &[Option<KnownFile>] {
        &self.files
    }

    /// Slots in the table of registered files.
    pub fn nr_files(&self) -> usize {
        self.files.len()
    }

    /// Fills the table with IORING_REGISTER_FILES.
    ///
    /// # Errors
    /// EBUSY if there is a table, EMFILE above RLIMIT_NOFILE or 1,048,576.
    pub fn register_files(&mut self, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let slots: Vec<FileSlot<'_>> = files.iter().map(|fd| Some((*fd, 0))).collect();
        let run = Run::new(&slots)?;
        sys::register_files(self.target()?, &run.fds)?;
        self.files = run.known;
        Ok(())
    }

    /// Fills the table with IORING_REGISTER_FILES2 (5.13).
    ///
    /// # Errors
    /// As [`register_files`](Self::register_files); EINVAL for an empty slot
    /// with a tag.
    pub fn register_files_tagged(&mut self, slots: &[FileSlot<'_>]) -> io::Result<()> {
        let run = Run::new(slots)?;
        sys::register_files_tagged(self.target()?, &run.fds, &run.tags)?;
        self.files = run.known;
        Ok(())
    }

    /// Makes a table of `slots` empty slots for files (5.19).
    ///
    /// # Errors
    /// EBUSY if there is a table of files.
    pub fn register_files_sparse(&mut self, slots: u32) -> io::Result<()> {
        sys::register_sparse(self.target()?, uapi::REGISTER_FILES2, slots)?;
        self.files = vec![None; slots as usize];
        Ok(())
    }

    /// Replaces slots from `index` on; `None` empties a slot.
    ///
    /// # Errors
    /// ENXIO without a table, EINVAL beyond its end.
    pub fn update_files(&mut self, index: u32, slots: &[FileSlot<'_>]) -> io::Result<()> {
        let run = Run::new(slots)?;
        let done = sys::update_files(self.target()?, index, &run.fds, &run.tags)?;
        for (slot, new) in self.files[index as usize..]
            .iter_mut()
            .zip(&run.known[..done])
        {
            slot.clone_from(new);
        }
        if done < slots.len() {
            let text = format!("the kernel updated {done} of {} slots", slots.len());
            return Err(io::Error::other(text));
        }
        Ok(())
    }

    /// Opens a file for reading straight into an empty slot, by
    /// IORING_OP_OPENAT: a direct descriptor that never had a number (5.15).
    ///
    /// # Errors
    /// Those of open(2), by the completion; `TimedOut` after ten seconds.
    pub fn open_direct(&mut self, path: &str, slot: u32) -> io::Result<()> {
        let known = KnownFile::of(File::open(path)?)?;
        let c_path = CString::new(path).map_err(|_| invalid("a path with a NUL"))?;
        let request = Request::open_direct(&c_path, slot)?;
        let done = self.run(request, Duration::from_secs(10))?;
        done.result()?;
        self.files[slot as usize] = Some(known);
        Ok(())
    }

    /// Gives the table of files back.
    ///
    /// # Errors
    /// ENXIO without a table.
    pub fn unregister_files(&mut self) -> io::Result<()> {
        sys::register_bare(self.target()?, uapi::UNREGISTER_FILES)?;
        self.files.clear();
        Ok(())
    }
}
