//! Where a ring is to be looked for: its inode, and who holds it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::error::{Error, Result};
use crate::ring::{Ring, Via};

/// One holder of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) pid: u32,
    #[cfg_attr(not(feature = "bpf"), allow(dead_code))]
    pub(crate) tid: u32,
    pub(crate) via: Via,
}

impl Place {
    /// What has to be looked through to find the ring here.
    #[cfg(feature = "bpf")]
    pub(crate) fn kind(&self) -> std::mem::Discriminant<Via> {
        std::mem::discriminant(&self.via)
    }
}

/// A ring, by its inode: a descriptor is no more than a place to look at, and
/// is not kept open, so that looking never keeps a ring alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) inode: u64,
    /// Never empty.
    pub(crate) places: Vec<Place>,
}

impl Address {
    /// A descriptor of our own.
    pub(crate) fn of_fd(fd: BorrowedFd<'_>) -> Result<Self> {
        let pid = std::process::id();
        let inode = inode_of(fd, pid, fd.as_raw_fd())?;
        Ok(Self::at(inode, pid, fd.as_raw_fd()))
    }

    /// A descriptor of a process, looked at through a copy.
    pub(crate) fn of_process(pid: u32, fd: i32) -> Result<Self> {
        let copy = crate::pidfd::copy_of(pid, fd)?;
        let inode = inode_of(copy.as_fd(), pid, fd)?;
        Ok(Self::at(inode, pid, fd))
    }

    /// All holders of a ring that was found.
    pub(crate) fn of_ring(ring: &Ring) -> Self {
        let places = ring
            .holders()
            .iter()
            .map(|holder| Place {
                pid: holder.pid,
                tid: holder.tid,
                via: holder.via,
            })
            .collect();
        Self {
            inode: ring.inode,
            places,
        }
    }

    fn at(inode: u64, pid: u32, fd: i32) -> Self {
        Self {
            inode,
            places: vec![Place {
                pid,
                tid: pid,
                via: Via::Descriptor(fd),
            }],
        }
    }

    /// The error for a ring that no holder has any more.
    pub(crate) fn gone(&self) -> Error {
        let first = self.places[0];
        let holder = match first.via {
            Via::Descriptor(fd) => format!("process {} (descriptor {fd})", first.pid),
            Via::Registered(index) => {
                format!("process {} (registered descriptor {index})", first.pid)
            }
            Via::Mapping => format!("process {} (mapping)", first.pid),
        };
        Error::RingGone {
            ring: self.inode,
            holder: match self.places.len() {
                1 => holder,
                n => format!("{holder}, nor any of {} others,", n - 1),
            },
        }
    }
}

/// The inode of a descriptor of ours that is a ring.
fn inode_of(fd: BorrowedFd<'_>, pid: u32, shown: i32) -> Result<u64> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let what = std::fs::read_link(&path)
        .map_err(|e| Error::os(format!("readlink {path} (is /proc mounted?)"), e))?;
    if what.as_os_str() != "anon_inode:[io_uring]" {
        return Err(Error::NotARing {
            pid,
            fd: shown,
            what: what.display().to_string(),
        });
    }
    let stat = rustix::fs::fstat(fd).map_err(|e| Error::os("fstat of a ring", e))?;
    Ok(stat.st_ino)
}
