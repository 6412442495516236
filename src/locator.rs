//! The identity of a ring or an epoll set, and the places where it can be found.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::epoll::EpollSet;
use crate::error::{Error, Result};
use crate::pidfd;
use crate::ring::{Holder, Ring, Via};
use crate::tasks::{self, descriptor_tables};

/// One holder of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) via: Via,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Known by its inode.
    Ring,
    /// All epoll sets share one inode: known by its descriptor.
    Epoll,
}

/// A ring or an epoll set: a descriptor is a place to look at and is not kept
/// open, so that reading never keeps it alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Locator {
    pub(crate) kind: Kind,
    /// Of the file.
    pub(crate) inode: u64,
    /// The very epoll set, opaque, as a search has seen it; 0 where none has.
    pub(crate) set: u64,
    /// Never empty.
    pub(crate) places: Vec<Place>,
}

impl Locator {
    /// A ring that is a descriptor of this process.
    pub(crate) fn of_fd(fd: BorrowedFd<'_>) -> Result<Self> {
        Self::at(Kind::Ring, fd, own(), fd.as_raw_fd())
    }

    /// A ring that is a descriptor of a process, looked at through a copy: in the table
    /// of its leader, or in that of a thread which has another one.
    pub(crate) fn of_process(pid: u32, fd: i32) -> Result<Self> {
        let mut none = Error::NoSuchProcess { pid };
        let mut found: Vec<Self> = Vec::new();
        let (tables, unseen) = match descriptor_tables(pid) {
            Ok(tables) => (tables, None),
            // The leader is found without /proc.
            Err(error) => (vec![pid], Some(error)),
        };
        for tid in tables {
            let copy = match tid == pid {
                true => pidfd::copy_of(pid, fd),
                false => pidfd::path_of_thread(pid, tid, fd),
            };
            match copy.and_then(|copy| Self::at(Kind::Ring, copy.as_fd(), (pid, tid), fd)) {
                Ok(one) => found.push(one),
                // An ended leader has no descriptors; others may.
                Err(error) if matches!(none, Error::NoSuchProcess { .. }) => none = error,
                Err(_) => {}
            }
        }
        let Some(ring) = found.first() else {
            return Err(match (none, unseen) {
                // Others may have it.
                (Error::NoSuchDescriptor { .. }, Some(unseen)) => unseen,
                (none, _) => none,
            });
        };
        if found.iter().any(|one| one.inode != ring.inode) {
            let rings = found.iter().map(|one| (one.places[0].tid, one.inode));
            let rings = rings.collect();
            return Err(Error::SeveralRings { pid, fd, rings });
        }
        Ok(Self {
            inode: ring.inode,
            kind: Kind::Ring,
            set: 0,
            places: found.into_iter().flat_map(|one| one.places).collect(),
        })
    }

    /// The same for an epoll set.
    pub(crate) fn of_epoll_fd(fd: BorrowedFd<'_>) -> Result<Self> {
        let kind = Kind::Epoll;
        Self::at(kind, fd, own(), fd.as_raw_fd())
    }

    /// The same for an epoll set.
    pub(crate) fn of_process_epoll(pid: u32, fd: i32) -> Result<Self> {
        let copy = pidfd::copy_of(pid, fd)?;
        Self::at(Kind::Epoll, copy.as_fd(), (pid, pid), fd)
    }

    /// An epoll set that is a descriptor of this thread, looked at through /proc.
    pub(crate) fn of_thread_epoll(pid: u32, tid: u32, fd: i32) -> Result<Self> {
        let link = tasks::link(pid, tid, fd)?;
        match link.what == EPOLL {
            true => Ok(Self {
                kind: Kind::Epoll,
                inode: link.inode,
                set: 0,
                places: vec![Place {
                    pid,
                    tid,
                    via: Via::Descriptor(fd),
                }],
            }),
            false => Err(Error::NotAnEpoll {
                pid,
                fd,
                what: link.what,
            }),
        }
    }

    /// All holders of a ring that was found.
    pub(crate) fn of_ring(ring: &Ring) -> Self {
        Self {
            kind: Kind::Ring,
            inode: ring.inode,
            set: 0,
            places: places(ring.holders()),
        }
    }

    /// All holders of an epoll set that was found.
    pub(crate) fn of_set(set: &EpollSet) -> Self {
        Self {
            kind: Kind::Epoll,
            inode: set.inode,
            set: set.set,
            places: places(set.holders()),
        }
    }

    fn at(kind: Kind, fd: BorrowedFd<'_>, (pid, tid): (u32, u32), shown: i32) -> Result<Self> {
        let what = link_of(fd)?;
        match kind {
            Kind::Ring if what != RING => Err(Error::NotARing {
                pid,
                fd: shown,
                what,
            }),
            Kind::Epoll if what != EPOLL => Err(Error::NotAnEpoll {
                pid,
                fd: shown,
                what,
            }),
            kind => Ok(Self {
                kind,
                inode: rustix::fs::fstat(fd)
                    .map_err(|e| Error::os("fstat of a descriptor", e))?
                    .st_ino,
                set: 0,
                places: vec![Place {
                    pid,
                    tid,
                    via: Via::Descriptor(shown),
                }],
            }),
        }
    }

    pub(crate) fn name(&self) -> Name {
        match (self.kind, self.places[0]) {
            (
                Kind::Epoll,
                Place {
                    pid,
                    tid,
                    via: Via::Descriptor(fd),
                },
            ) => Name::Epoll { pid, tid, fd },
            _ => Name::Ring(self.inode),
        }
    }

    /// The error for what no holder has any more.
    pub(crate) fn gone(&self) -> Error {
        if let name @ Name::Epoll { .. } = self.name() {
            return name.gone();
        }
        let first = self.places[0];
        let holder = format!("process {} ({})", first.pid, first.via);
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
pub(crate) enum Name {
    /// By its inode.
    Ring(u64),
    Epoll {
        pid: u32,
        tid: u32,
        fd: i32,
    },
    /// By the number that only a native iterator tells.
    EpollId(u64),
}

impl Name {
    /// The error for what is no longer there, where no more is known.
    pub(crate) fn gone(self) -> Error {
        match self {
            Self::Ring(ring) => Error::RingGone {
                ring,
                holder: "its last holder".into(),
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
            Self::Epoll { pid, tid, fd } if pid == tid => {
                write!(f, "epoll set {fd} of process {pid}")
            }
            Self::Epoll { pid, tid, fd } => {
                write!(f, "epoll set {fd} of thread {tid} of process {pid}")
            }
            Self::EpollId(id) => write!(f, "epoll set with id {id}"),
        }
    }
}

fn places(holders: &[Holder]) -> Vec<Place> {
    let place = |holder: &Holder| Place {
        pid: holder.pid,
        tid: holder.tid,
        via: holder.via,
    };
    holders.iter().map(place).collect()
}

/// This process and this thread.
fn own() -> (u32, u32) {
    let tid = rustix::thread::gettid().as_raw_nonzero().get();
    (std::process::id(), tid.unsigned_abs())
}

/// The links that `/proc/PID/fd` shows: anon_inodefs is the kernel's alone, and no file
/// elsewhere has a name that begins with its.
pub(crate) const RING: &str = "anon_inode:[io_uring]";
pub(crate) const EPOLL: &str = "anon_inode:[eventpoll]";

pub(crate) fn link_of(fd: BorrowedFd<'_>) -> Result<String> {
    // Of this thread, which may have descriptors of its own.
    let path = format!("/proc/thread-self/fd/{}", fd.as_raw_fd());
    let link = std::fs::read_link(&path)
        .map_err(|e| Error::os(format!("readlink {path} (is /proc mounted?)"), e))?;
    Ok(link.display().to_string())
}
