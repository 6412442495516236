//! Tells the paths of registered files.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::backend::bpf::iterator::{self, Ended};
use crate::backend::bpf::maps;
use crate::backend::bpf::native::attach;
use crate::backend::bpf::program::Programs;
use crate::backend::bpf::table::FILES;
use crate::backend::bpf::wire::{FilePath, WalkRequest};
use crate::backend::select::NotOpened;
use crate::error::{Error, Missed, Result};
use crate::locator::Locator;
use crate::sys::shared::Shared;

/// Tells paths of registered files of one ring.
pub(crate) struct Paths {
    locator: Locator,
    link: OwnedFd,
    request: Shared<WalkRequest>,
    path: Shared<FilePath>,
    _programs: Programs,
}

impl Paths {
    pub(crate) fn open(locator: &Locator) -> Result<Self, NotOpened> {
        let programs = Programs::load_only(|| maps::open(&FILES, 1), &[c"tell_path"])?;
        let ring = attach::descriptor(locator)?;
        let fail = |e| Error::os("mmap of a BPF map", e);
        let fd = |name| programs.object.map_fd(name).map_err(fail);
        Ok(Self {
            locator: locator.clone(),
            link: attach::link(&programs, ring.as_fd(), locator)?,
            request: Shared::map(fd(c".bss.request")?, 1).map_err(fail)?,
            path: Shared::map(fd(c".bss.path")?, 1).map_err(fail)?,
            _programs: programs,
        })
    }

    /// The path of the file in one slot, `None` for an empty one.
    pub(crate) fn tell(&mut self, slot: u64) -> Result<Option<PathBuf>, Missed> {
        let fail = |e| Error::os("use an iterator", e);
        let request = WalkRequest {
            slot,
            ..WalkRequest::default()
        };
        self.request.write(request).map_err(fail)?;
        self.path.write(FilePath::default()).map_err(fail)?;
        // The program is called for all slots.
        iterator::walk(self.link.as_fd(), || Ok(false)).map_err(|ended| match ended {
            Ended::By(errno) => iterator::missed(errno, || self.locator.gone()),
            Ended::Failed(error) => Missed::Failed(error),
        })?;
        let path = self.path.read().map_err(fail)?;
        let Ok(len) = usize::try_from(path.len) else {
            let errno = Errno::from_raw_os_error(i32::try_from(-path.len).unwrap_or(0));
            return Err(Error::os(format!("bpf_d_path of file {slot}"), errno).into());
        };
        if len == 0 {
            return Ok(None);
        }
        // With its NUL.
        match path.text.get(..len).and_then(|text| text.split_last()) {
            Some((0, text)) => Ok(Some(OsStr::from_bytes(text).into())),
            _ => Err(Error::malformed(
                "bpf_d_path",
                format!("a path of {len} bytes without an end"),
            )
            .into()),
        }
    }
}
