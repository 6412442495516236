//! What more there is to ask of `bpf/files.bpf.c`: the descriptors of a
//! process, and the path of one registered file.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::backend::maps;
use crate::backend::native;
use crate::backend::program::{self, Forms, Programs};
use crate::backend::select::NotOpened;
use crate::error::{Contention, Error, Result};
use crate::locator::Locator;
use crate::record::wire::{Descriptor, FilePath, WalkReply, WalkRequest};
use crate::record::RegisteredFile;
use crate::sys::bpf::{Object, Tasks};
use crate::sys::shared::Shared;

const LIST: Forms = Forms {
    direct: &[c"list_descriptors"],
    compat: &[c"list_descriptors_compat"],
};

/// All descriptors of a process.
pub(crate) fn descriptors(pid: u32) -> Result<Vec<Descriptor>, NotOpened> {
    let mut capacity = 1024;
    loop {
        let programs = Programs::load(|| open(capacity), LIST)?;
        let fail = |e| Error::os("mmap of a BPF map", e);
        let fd = |name| programs.object.map_fd(name).map_err(fail);
        let reply = Shared::<WalkReply>::map(fd(c".bss.reply")?, 1).map_err(fail)?;
        let rows = Shared::<Descriptor>::map(fd(c"descriptors")?, capacity).map_err(fail)?;
        let link = programs.link(programs.names[0], Tasks::Process(pid))?;
        program::run(&link)?;
        let nr = reply.read().map_err(fail)?.nr_slots as usize;
        if let Some(rows) = rows.get(nr) {
            return Ok(rows.to_vec());
        }
        // The next look may see more.
        capacity = nr.saturating_mul(2);
    }
}

fn open(capacity: usize) -> std::io::Result<Object> {
    let mut object = maps::open::<RegisteredFile>(1)?;
    let entries = u32::try_from(capacity).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
    object.set_max_entries(c"descriptors", entries)?;
    Ok(object)
}

/// Tells paths of registered files of one ring.
pub(crate) struct Paths {
    address: Locator,
    link: OwnedFd,
    request: Shared<WalkRequest>,
    path: Shared<FilePath>,
    _programs: Programs,
}

impl Paths {
    pub(crate) fn open(address: &Locator) -> Result<Self, NotOpened> {
        let programs = Programs::load_only(|| maps::open::<RegisteredFile>(1), &[c"tell_path"])?;
        let ring = native::descriptor(address)?;
        let fail = |e| Error::os("mmap of a BPF map", e);
        let fd = |name| programs.object.map_fd(name).map_err(fail);
        Ok(Self {
            address: address.clone(),
            link: native::link(&programs, ring.as_fd(), address)?,
            request: Shared::map(fd(c".bss.request")?, 1).map_err(fail)?,
            path: Shared::map(fd(c".bss.path")?, 1).map_err(fail)?,
            _programs: programs,
        })
    }

    /// The path of the file in one slot, `None` for an empty one; or what was
    /// in the way.
    pub(crate) fn tell(&mut self, index: u64) -> Result<Result<Option<PathBuf>, Contention>> {
        let fail = |e| Error::os("use an iterator", e);
        let request = WalkRequest {
            which: index,
            ..WalkRequest::default()
        };
        self.request.write(request).map_err(fail)?;
        self.path.write(FilePath::default()).map_err(fail)?;
        // It is told of all slots.
        let done = || Ok(false);
        if let Err(why) = native::run_session(self.link.as_fd(), &self.address, done)? {
            return Ok(Err(why));
        }
        let path = self.path.read().map_err(fail)?;
        let Ok(len) = usize::try_from(path.len) else {
            let errno = Errno::from_raw_os_error(i32::try_from(-path.len).unwrap_or(0));
            return Err(Error::os(format!("bpf_d_path of file {index}"), errno));
        };
        if len == 0 {
            return Ok(Ok(None));
        }
        // With its NUL.
        match path.text.get(..len).and_then(|text| text.split_last()) {
            Some((0, text)) => Ok(Ok(Some(OsStr::from_bytes(text).into()))),
            _ => Err(Error::malformed(
                "bpf_d_path",
                format!("a path of {len} bytes without an end"),
            )),
        }
    }
}
