//! Reads the table of one ring from its fdinfo.

use std::fs;
use std::io;

use crate::backend::fdinfo::text::{parse, Text};
use crate::backend::select::NotOpened;
use crate::error::{Contention, Error, Result};
use crate::iter::{Address, Consistency};
use crate::record::RegisteredBuf;
use crate::ring::Via;

/// Reads the table of one ring, again and again.
pub(crate) struct Reader {
    address: Address,
    pid: u32,
    fd: i32,
    records: Vec<RegisteredBuf>,
}

impl Reader {
    pub(crate) fn open(address: Address) -> Result<Self, NotOpened> {
        let descriptor = address.places.iter().find_map(|place| match place.via {
            Via::Descriptor(fd) => Some((place.pid, fd)),
            _ => None,
        });
        let Some((pid, fd)) = descriptor else {
            return Err(NotOpened::Failed(Error::Unsupported {
                backend: crate::Backend::Fdinfo,
                what: "read a ring that no one has a descriptor of",
                why: "/proc shows it as a mapping at most; the task-file backend can, as root"
                    .into(),
            }));
        };
        let reader = Self {
            address,
            pid,
            fd,
            records: Vec::new(),
        };
        reader.text()?;
        Ok(reader)
    }

    pub(crate) fn inode(&self) -> u64 {
        self.address.inode
    }

    fn path(&self) -> String {
        format!("/proc/{}/fdinfo/{}", self.pid, self.fd)
    }

    fn text(&self) -> Result<Vec<u8>> {
        let path = self.path();
        fs::read(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => self.address.gone(),
            io::ErrorKind::PermissionDenied => Error::NotPermitted {
                operation: format!("read {path}"),
                needs: "be root, have CAP_SYS_PTRACE, or be the user that the process runs as",
                source: e,
            },
            // The process went between open and read.
            _ if e.raw_os_error() == Some(libc::ESRCH) => self.address.gone(),
            _ => Error::os(format!("read {path}"), e),
        })
    }

    /// Reads the list once, or says what was in the way.
    pub(crate) fn read(&mut self) -> Result<Result<Consistency, Contention>> {
        let text = self.text()?;
        let page_shift = rustix::param::page_size().trailing_zeros() as u8;
        let ring = match parse(&text, page_shift, &self.path())? {
            Text::Ring(ring) => ring,
            Text::Bare { inode } => {
                self.same(inode)?;
                return Ok(Err(Contention::LockHeldUnseen));
            }
        };
        self.same(ring.inode)?;
        let Some(bufs) = ring.bufs else {
            return Ok(Err(Contention::LockHeldUnseen));
        };
        self.records = bufs;
        Ok(Ok(list_consistency(&self.records)))
    }

    /// The number may have gone to another file. (The inode is printed since
    /// 5.14.)
    fn same(&self, inode: Option<u64>) -> Result<()> {
        match inode {
            Some(inode) if inode != self.address.inode => Err(self.address.gone()),
            _ => Ok(()),
        }
    }

    pub(crate) fn records(&self) -> &[RegisteredBuf] {
        &self.records
    }
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
