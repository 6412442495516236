//! Reads the table of one ring from its fdinfo.

use std::fs;
use std::io;

use crate::backend::fdinfo::text::{parse, RingText, Text};
use crate::backend::select::{check_proc, NotOpened};
use crate::backend::ReadText;
use crate::error::{Contention, Error, Result};
use crate::locator::{Locator, Name};
use crate::record::Consistency;
use crate::record::RegisteredBuf;
use crate::ring::Via;

/// Reads the table of one ring, again and again.
pub(crate) struct Reader {
    address: Locator,
    /// The descriptors of the ring, the one in use last.
    descriptors: Vec<(u32, i32)>,
    records: Vec<RegisteredBuf>,
}

impl Reader {
    pub(crate) fn open(address: Locator) -> Result<Self, NotOpened> {
        check_proc().map_err(NotOpened::Refused)?;
        let descriptors: Vec<(u32, i32)> = address
            .places
            .iter()
            .rev()
            .filter_map(|place| match place.via {
                Via::Descriptor(fd) => Some((place.pid, fd)),
                _ => None,
            })
            .collect();
        if descriptors.is_empty() {
            return Err(NotOpened::Failed(Error::Unsupported {
                backend: crate::Backend::Fdinfo,
                what: "read a ring that no one has a descriptor of",
                why: "/proc shows it as a mapping at most; the task-file backend can, as root"
                    .into(),
            }));
        }
        let mut reader = Self {
            address,
            descriptors,
            records: Vec::new(),
        };
        reader.text()?;
        Ok(reader)
    }

    /// The text of the first descriptor that still is this ring.
    fn text(&mut self) -> Result<Text> {
        let page_shift = rustix::param::page_size().trailing_zeros() as u8;
        while let Some((pid, fd)) = self.descriptors.last() {
            let path = format!("/proc/{pid}/fdinfo/{fd}");
            match fs::read(&path) {
                Ok(bytes) => {
                    let text = parse(&bytes, page_shift, &path)?;
                    // The number may have gone to another file. (The inode is
                    // printed since 5.14.)
                    if text.inode().is_none_or(|inode| inode == self.address.inode) {
                        return Ok(text);
                    }
                }
                Err(e) if is_gone(&e) => {}
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(Error::NotPermitted {
                        operation: format!("read {path}"),
                        needs: "be root, have CAP_SYS_PTRACE, or be the user that the \
                                process runs as",
                        source: e,
                    })
                }
                Err(e) => return Err(Error::os(format!("read {path}"), e)),
            }
            self.descriptors.pop();
        }
        Err(self.address.gone())
    }
}

impl ReadText<RegisteredBuf> for Reader {
    fn name(&self) -> Name {
        self.address.name()
    }

    fn read(&mut self) -> Result<Result<Consistency, Contention>> {
        let text = self.text()?;
        let Text::Ring(RingText {
            bufs: Some(bufs), ..
        }) = text
        else {
            return Ok(Err(Contention::LockHeldUnseen));
        };
        self.records = bufs;
        Ok(Ok(list_consistency(&self.records)))
    }

    fn records(&self) -> &[RegisteredBuf] {
        &self.records
    }
}

/// The process or the descriptor has gone, before or after it was opened.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// A list is printed under the lock. But up to 6.12 its title is not, and a
/// size of 0 may mean that the table is just being taken down.
pub(crate) fn list_consistency(bufs: &[RegisteredBuf]) -> Consistency {
    match bufs.is_empty() && !prints_under_lock() {
        true => Consistency::Raw,
        false => Consistency::Locked,
    }
}

/// True if this kernel prints nothing of a ring whose lock is taken: seen from
/// 6.18 on.
pub(crate) fn prints_under_lock() -> bool {
    crate::kernel::at_least(6, 18)
}
