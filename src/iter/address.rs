//! Where a ring is to be looked for: its inode, and who holds it.

use std::fmt;
#[cfg(feature = "bpf")]
use std::os::fd::OwnedFd;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

#[cfg(feature = "bpf")]
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::pidfd;
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

/// Why no descriptor of a ring could be copied.
#[cfg(feature = "bpf")]
#[derive(Debug)]
pub(crate) enum NoCopy {
    /// It takes rights that the caller does not have.
    Refused(Error),
    /// A thread with descriptors of its own may have it.
    OutOfReach,
    /// Those that there were are no more.
    Gone,
    /// There never was one.
    None,
}

/// A ring, by its inode: a descriptor is no more than a place to look at, and
/// is not kept open, so that looking never keeps a ring alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
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
        let copy = pidfd::copy_of(pid, fd)?;
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

    /// A descriptor of the ring, for as long as it takes to use it.
    #[cfg(feature = "bpf")]
    pub(crate) fn copy_descriptor(&self) -> Result<OwnedFd, NoCopy> {
        let mut found = false;
        let mut out_of_reach = false;
        let mut refused = None;
        for place in &self.places {
            let Via::Descriptor(fd) = place.via else {
                continue;
            };
            found = true;
            let copy = match pidfd::copy_of(place.pid, fd) {
                // In the table of a thread that does not share the leader's.
                Err(Error::NoSuchDescriptor { .. }) => {
                    let copy = pidfd::copy_of_thread(place.tid, fd);
                    out_of_reach |= copy.is_err();
                    copy
                }
                copy => copy,
            };
            match copy {
                Ok(copy) if rustix::fs::fstat(&copy).is_ok_and(|s| s.st_ino == self.inode) => {
                    return Ok(copy)
                }
                Err(error @ Error::NotPermitted { .. }) => refused = Some(error),
                _ => {}
            }
        }
        Err(match refused {
            Some(error) => NoCopy::Refused(error),
            None if out_of_reach => NoCopy::OutOfReach,
            None if found => NoCopy::Gone,
            None => NoCopy::None,
        })
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

    pub(crate) fn name(&self) -> RingName {
        RingName(self.inode)
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

/// A ring as messages name it.
#[derive(Clone, Copy)]
pub struct RingName(pub(crate) u64);

impl fmt::Display for RingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ring {}", self.0)
    }
}

/// What it means that the kernel did not attach an iterator to a descriptor
/// of ours.
#[cfg(feature = "bpf")]
pub(crate) fn ring_attach_error(fd: BorrowedFd<'_>, errno: Errno) -> Option<Error> {
    let address = || Address::of_fd(fd);
    match errno {
        Errno::OPNOTSUPP => address().err(),
        Errno::NXIO => Some(match address() {
            Ok(address) => address.gone(),
            Err(error) => error,
        }),
        _ => None,
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
