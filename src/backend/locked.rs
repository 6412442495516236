//! A walk under `uring_lock`, from Linux 6.13 on.
//!
//! `io_uring_register(2)` fires its tracepoint with the lock held. An observer
//! process makes such a call, of a kind that only fails, and the program at
//! the tracepoint walks the table when it sees that very process.
//!
//! The wait for the lock has no limit in the kernel. So the owner is looked at
//! first, and an observer that does not come back in time is left behind with
//! the maps that its program may still write to.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::backend::program::Programs;
use crate::backend::select::NotOpened;
use crate::backend::task_file::{outcome, owner, page_shift, Maps, Walker};
use crate::backend::Backend;
use crate::error::{Contention, Error, Result};
use crate::iter::Address;
use crate::record::wire::{Mode, Status, WalkReply, WalkRequest};
use crate::record::RegisteredBuf;
use crate::ring::Via;
use crate::sys::bpf::{self, Object};
use crate::sys::observer::{Observer, Outcome};

const PROGRAM: &CStr = c"dump_bufs_locked";
const PAUSE: Duration = Duration::from_millis(1);

/// What is needed for walks under the lock; made at the first one.
#[derive(Default)]
pub(crate) struct Locked {
    loaded: Option<(Maps, Programs)>,
}

impl Locked {
    /// Walks the table under its lock: its size. Comes back by the deadline.
    pub(crate) fn walk(&mut self, walker: &mut Walker, limit: Duration) -> Result<usize> {
        let start = Instant::now();
        let address = walker.address().clone();
        let ring = copy_descriptor(&address)?;
        let mut attempts = 0;
        let contended = |why, attempts| {
            Err(Error::Contended {
                ring: address.inode,
                why,
                attempts,
                elapsed: start.elapsed(),
            })
        };
        let look = loop {
            attempts += 1;
            let look = walker.peek()?;
            if look.owner == 0 || look.owner_sleeps == 0 {
                break look;
            }
            if start.elapsed() + PAUSE > limit {
                return contended(Contention::LockHeld(owner(&look)), attempts);
            }
            std::thread::sleep(PAUSE);
        };
        let left = limit.saturating_sub(start.elapsed()).max(PAUSE);
        match self.observe(ring.as_fd(), &address, &look, left)? {
            Ok(nr) => Ok(nr),
            Err(why) => contended(why, attempts),
        }
    }

    fn observe(
        &mut self,
        ring: BorrowedFd<'_>,
        address: &Address,
        look: &WalkReply,
        limit: Duration,
    ) -> Result<Result<usize, Contention>> {
        let (maps, programs) = match &mut self.loaded {
            Some(loaded) => loaded,
            None => self.loaded.insert(load()?),
        };
        let link = programs
            .object
            .program_fd(PROGRAM)
            .and_then(bpf::link_tracepoint)
            .map_err(|e| Error::os("attach to the tracepoint io_uring_register", e))?;
        let observer = Observer::new(ring).map_err(|e| Error::os("clone3 of an observer", e))?;
        maps.request.write(WalkRequest {
            inode: address.inode,
            mode: Mode::Locked as u32,
            observer: observer.pid(),
            pidns_level: look.pidns_level,
            pidns_inode: look.pidns_inode,
            page_shift: page_shift(),
            pad: [0; 7],
        });
        maps.reply.write(WalkReply::default());
        let ended = observer.run(limit);
        drop(link);
        match ended {
            Ok(Outcome::Returned(_)) => {}
            Ok(Outcome::Killed) => {
                return Err(Error::os(
                    "wait for the observer",
                    std::io::Error::other("something killed it"),
                ))
            }
            Ok(Outcome::TimedOut) => {
                self.loaded = None;
                return Ok(Err(Contention::LockTimeout));
            }
            Err(e) => {
                self.loaded = None;
                return Err(Error::os("wait for the observer", e));
            }
        }
        let reply = maps.reply.read();
        match reply.status() {
            Some(Status::NotLocked) => Err(unsupported(
                "this kernel's tracepoint io_uring_register fires after the unlock; \
                 Linux 6.13 and later fire it before"
                    .into(),
            )),
            Some(Status::NotFound) => Err(Error::malformed(
                "the tracepoint io_uring_register",
                "it did not see the observer's call",
            )),
            _ => outcome(address, &reply),
        }
    }

    /// The records of the last walk.
    pub(crate) fn records(&self, nr: usize) -> Result<&[RegisteredBuf]> {
        match &self.loaded {
            Some((maps, _)) => maps.records(nr),
            None => Err(Error::malformed("the walk", "no records")),
        }
    }
}

fn load() -> Result<(Maps, Programs)> {
    let programs = Programs::load_only(|| Object::open(bpf::bufs_object()), &[PROGRAM]).map_err(
        |e| match e {
            NotOpened::Failed(error) => error,
            NotOpened::Refused(reason) => {
                unsupported(format!("{reason}; it takes Linux 6.13 or later"))
            }
        },
    )?;
    Ok((Maps::of(&programs.object)?, programs))
}

fn unsupported(why: String) -> Error {
    Error::Unsupported {
        backend: Backend::TaskFile,
        what: "read under uring_lock",
        why,
    }
}

/// A descriptor of the ring, for as long as one walk takes.
fn copy_descriptor(address: &Address) -> Result<OwnedFd> {
    let descriptors = address.places.iter().filter_map(|place| match place.via {
        Via::Descriptor(fd) => Some((place.pid, fd)),
        _ => None,
    });
    let mut found = false;
    for (pid, fd) in descriptors {
        found = true;
        let copy = crate::pidfd::copy_of(pid, fd);
        match copy {
            Ok(copy) => match rustix::fs::fstat(&copy) {
                Ok(stat) if stat.st_ino == address.inode => return Ok(copy),
                _ => {}
            },
            Err(error @ Error::NotPermitted { .. }) => return Err(error),
            Err(_) => {}
        }
    }
    if found {
        return Err(address.gone());
    }
    Err(unsupported(
        "that takes a descriptor of the ring, and its holders have none".into(),
    ))
}
