//! Where a ring or an epoll set is to be looked for: what it is known by, and who
//! holds it.

use std::fmt;
#[cfg(feature = "bpf")]
use std::os::fd::OwnedFd;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

#[cfg(feature = "bpf")]
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::pidfd;
#[cfg(feature = "bpf")]
use crate::record::wire::{WalkReply, WalkRequest};
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
    /// It takes rights, or room for a descriptor, that the caller does not have.
    Refused(Error),
    /// A thread with descriptors of its own may have it.
    OutOfReach,
    /// Those that there were are no more.
    Gone,
    /// There never was one.
    None,
}

/// What an address is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Known by its inode.
    Ring,
    /// All of them share one inode: known by its descriptor and, once it was
    /// seen, by a number that is opaque.
    Epoll { seen: u64 },
}

/// A ring or an epoll set: a descriptor is no more than a place to look at, and
/// is not kept open, so that looking never keeps it alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locator {
    kind: Kind,
    /// Of the file.
    pub(crate) inode: u64,
    /// Never empty.
    pub(crate) places: Vec<Place>,
}

impl Locator {
    /// A ring that is a descriptor of our own.
    pub(crate) fn of_fd(fd: BorrowedFd<'_>) -> Result<Self> {
        Self::at(Kind::Ring, fd, own(), fd.as_raw_fd())
    }

    /// A ring that is a descriptor of a process, looked at through a copy.
    pub(crate) fn of_process(pid: u32, fd: i32) -> Result<Self> {
        let copy = pidfd::copy_of(pid, fd)?;
        Self::at(Kind::Ring, copy.as_fd(), (pid, pid), fd)
    }

    /// The same for an epoll set.
    pub(crate) fn of_epoll_fd(fd: BorrowedFd<'_>) -> Result<Self> {
        let kind = Kind::Epoll { seen: 0 };
        Self::at(kind, fd, own(), fd.as_raw_fd())
    }

    /// The same for an epoll set.
    pub(crate) fn of_process_epoll(pid: u32, fd: i32) -> Result<Self> {
        let copy = pidfd::copy_of(pid, fd)?;
        Self::at(Kind::Epoll { seen: 0 }, copy.as_fd(), (pid, pid), fd)
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
            kind: Kind::Ring,
            inode: ring.inode,
            places,
        }
    }

    /// A descriptor of it, for as long as it takes to use it.
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
            let mut copy = pidfd::copy_of(place.pid, fd);
            // A thread may have a table of its own, in which the number of
            // another file, or of none, of the leader is the ring's.
            let is_elsewhere = match &copy {
                Ok(copy) => !self.is_of(copy),
                Err(error) => matches!(error, Error::NoSuchDescriptor { .. }),
            };
            if is_elsewhere && place.tid != place.pid {
                copy = pidfd::copy_of_thread(place.tid, fd);
                out_of_reach |= matches!(copy, Err(Error::NoSuchProcess { .. }));
            }
            match copy {
                Ok(copy) if self.is_of(&copy) => return Ok(copy),
                Ok(_) | Err(Error::NoSuchDescriptor { .. } | Error::NoSuchProcess { .. }) => {}
                // Says something of us (EPERM, EMFILE), of the ring nothing.
                Err(error) => refused = Some(error),
            }
        }
        Err(match refused {
            Some(error) => NoCopy::Refused(error),
            None if out_of_reach => NoCopy::OutOfReach,
            None if found => NoCopy::Gone,
            None => NoCopy::None,
        })
    }

    /// True as far as the descriptor by itself tells: of an epoll set only that
    /// it is one.
    #[cfg(feature = "bpf")]
    fn is_of(&self, copy: &OwnedFd) -> bool {
        let same = rustix::fs::fstat(copy).is_ok_and(|s| s.st_ino == self.inode);
        let is_epoll = || link_of(copy.as_fd()).is_ok_and(|link| link == EPOLL);
        same && (self.kind == Kind::Ring || is_epoll())
    }

    fn at(kind: Kind, fd: BorrowedFd<'_>, (pid, tid): (u32, u32), shown: i32) -> Result<Self> {
        let what = link_of(fd)?;
        match kind {
            Kind::Ring if what != RING => Err(Error::NotARing {
                pid,
                fd: shown,
                what,
            }),
            Kind::Epoll { .. } if what != EPOLL => Err(Error::NotAnEpoll {
                pid,
                fd: shown,
                what,
            }),
            kind => Ok(Self {
                kind,
                inode: rustix::fs::fstat(fd)
                    .map_err(|e| Error::os("fstat of a descriptor", e))?
                    .st_ino,
                places: vec![Place {
                    pid,
                    tid,
                    via: Via::Descriptor(shown),
                }],
            }),
        }
    }

    /// What the programs are asked. `which` is of a ring that has several.
    #[cfg(feature = "bpf")]
    pub(crate) fn request(&self, which: u64) -> WalkRequest {
        let request = WalkRequest {
            inode: self.inode,
            which,
            ..WalkRequest::default()
        };
        match (self.kind, self.places[0].via) {
            (Kind::Epoll { seen }, Via::Descriptor(fd)) => WalkRequest {
                which: seen,
                fd,
                ..request
            },
            _ => request,
        }
    }

    /// What a program met: from now on it is that.
    #[cfg(feature = "bpf")]
    pub(crate) fn met(&mut self, reply: &WalkReply) {
        if let Kind::Epoll { seen } = &mut self.kind {
            *seen = reply.which;
        }
    }

    pub(crate) fn name(&self) -> Name {
        match (self.kind, self.places[0]) {
            (
                Kind::Epoll { .. },
                Place {
                    pid,
                    via: Via::Descriptor(fd),
                    ..
                },
            ) => Name::Epoll { pid, fd },
            _ => Name::Ring(self.inode),
        }
    }

    /// The error for what no holder has any more.
    pub(crate) fn gone(&self) -> Error {
        if let name @ Name::Epoll { .. } = self.name() {
            return name.gone();
        }
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

/// A ring or an epoll set as messages name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// By its inode.
    Ring(u64),
    Epoll {
        pid: u32,
        fd: i32,
    },
    /// By the number that only a native iterator tells.
    #[cfg_attr(not(feature = "bpf"), allow(dead_code))]
    EpollId(u64),
}

impl Name {
    /// The error for what is no longer there, where no more is known.
    pub(crate) fn gone(self) -> Error {
        match self {
            Self::Ring(ring) => Error::RingGone {
                ring,
                holder: "whoever had it".into(),
            },
            set => Error::EpollGone {
                set: set.to_string(),
            },
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(inode) => write!(f, "ring {inode}"),
            Self::Epoll { pid, fd } => write!(f, "epoll set {fd} of process {pid}"),
            Self::EpollId(id) => write!(f, "epoll set with id {id}"),
        }
    }
}

/// What it means that the kernel did not attach an iterator of a ring to a
/// descriptor of ours.
#[cfg(feature = "bpf")]
pub(crate) fn ring_attach_error(fd: BorrowedFd<'_>, errno: Errno) -> Option<Error> {
    let address = || Locator::of_fd(fd);
    match errno {
        Errno::OPNOTSUPP => address().err(),
        Errno::NXIO => Some(match address() {
            Ok(address) => address.gone(),
            Err(error) => error,
        }),
        _ => None,
    }
}

/// The same for that of an epoll set.
#[cfg(feature = "bpf")]
pub(crate) fn epoll_attach_error(fd: BorrowedFd<'_>, errno: Errno) -> Option<Error> {
    match errno {
        Errno::OPNOTSUPP => Locator::of_epoll_fd(fd).err(),
        _ => None,
    }
}

/// This process and this thread.
fn own() -> (u32, u32) {
    let tid = rustix::thread::gettid().as_raw_nonzero().get();
    (std::process::id(), tid.unsigned_abs())
}

/// What `/proc/PID/fd` shows: anon_inodefs is the kernel's alone, and no file
/// elsewhere has a name that begins with its.
const RING: &str = "anon_inode:[io_uring]";
pub(crate) const EPOLL: &str = "anon_inode:[eventpoll]";

fn link_of(fd: BorrowedFd<'_>) -> Result<String> {
    // Of this thread, which may have descriptors of its own.
    let path = format!("/proc/thread-self/fd/{}", fd.as_raw_fd());
    let link = std::fs::read_link(&path)
        .map_err(|e| Error::os(format!("readlink {path} (is /proc mounted?)"), e))?;
    Ok(link.display().to_string())
}
