//! The fdinfo of one descriptor of a process, kept open from one read to the next.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, RawFd};

use rustix::buffer::spare_capacity;
use rustix::io::{pread, retry_on_intr};

use crate::backend::fdinfo::proc::{self, is_gone};
use crate::error::Result;

/// It keeps nothing alive but the number of the process: the kernel looks at each read
/// for the descriptor of that number (seq_show(), fs/proc/fd.c), which may by then be
/// another file, as it may be where the file is opened for each read. Kept open, it
/// keeps the kernel's buffer, which otherwise begins with one page and is doubled, and
/// the text made again, until all fits (seq_read_iter(), fs/seq_file.c).
pub(super) struct Fdinfo {
    path: String,
    file: File,
}

impl Fdinfo {
    /// That of a task, by the path of its folder. `None` if the process or the descriptor
    /// has gone.
    pub(super) fn open(task: &str, fd: RawFd) -> Result<Option<Self>> {
        let path = format!("{task}/fdinfo/{fd}");
        match File::open(&path) {
            Ok(file) => Ok(Some(Self { path, file })),
            Err(e) if is_gone(&e) => Ok(None),
            Err(e) => Err(proc::failed(&path, e)),
        }
    }

    /// For errors.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Puts the text as it is now in place of what was read before; false if the
    /// process or the descriptor has gone.
    pub(super) fn read(&self, text: &mut Vec<u8>) -> Result<bool> {
        match read_whole(&self.file, text) {
            Ok(()) => Ok(true),
            Err(e) if is_gone(&e) => Ok(false),
            Err(e) => Err(proc::failed(&self.path, e)),
        }
    }
}

/// The whole text of a file that the kernel makes in one piece (single_open(),
/// fs/seq_file.c), as all of those are that are read here. Its reads give as much as
/// there is room for, so one that gives less has reached the end.
pub(super) fn read_whole(file: impl AsFd, text: &mut Vec<u8>) -> io::Result<()> {
    /// More than most texts need.
    const ROOM: usize = 4096;
    text.clear();
    loop {
        if text.len() == text.capacity() {
            text.reserve(ROOM);
        }
        let (offset, room) = (text.len() as u64, text.capacity() - text.len());
        let read = retry_on_intr(|| pread(&file, spare_capacity(text), offset))?;
        if read < room {
            return Ok(());
        }
    }
}
