//! A walk under `uring_lock`, from Linux 6.13 on.
//!
//! `io_uring_register(2)` fires its tracepoint with the lock held. An observer
//! process makes such a call, of a kind that only fails, and the program at
//! the tracepoint walks the table when it sees that very process.
//!
//! The wait for the lock has no limit in the kernel. So everything is made
//! ready first, then the owner of the lock is looked at, and only then the
//! observer may start. One that does not come back in time is left behind with
//! the maps that its program may still write to.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::backend::program::Programs;
use crate::backend::select::NotOpened;
use crate::backend::task_file::{outcome, owner, page_shift, Maps, Walker};
use crate::backend::Backend;
use crate::error::{Contention, Error, Result};
use crate::iter::Address;
use crate::pidfd;
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
        let ring = copy_descriptor(walker)?;
        let (maps, programs) = match &mut self.loaded {
            Some(loaded) => loaded,
            None => self.loaded.insert(load()?),
        };
        let link = programs
            .object
            .program_fd(PROGRAM)
            .and_then(bpf::link_tracepoint)
            .map_err(|e| not_permitted("attach to the tracepoint io_uring_register", e))?;
        let observer = new_observer(&ring)?;

        let inode = walker.address().inode;
        let mut attempts = 0;
        let contended = |why, attempts| Error::Contended {
            ring: inode,
            why,
            attempts,
            elapsed: start.elapsed(),
        };
        let look = loop {
            attempts += 1;
            let look = walker.look(Mode::Peek)?;
            if look.owner == 0 || look.owner_sleeps == 0 {
                break look;
            }
            if start.elapsed().saturating_add(PAUSE) > limit {
                return Err(contended(Contention::LockHeld(owner(&look)), attempts));
            }
            std::thread::sleep(PAUSE);
        };
        maps.ask(request(walker.address(), &observer, &look))?;
        let left = limit.saturating_sub(start.elapsed()).max(PAUSE);
        let ended = observer.run(left);
        drop(link);
        match ended {
            Ok(Outcome::Returned(errno)) => {
                let reply = maps.answer()?;
                judge(walker.address(), &reply, errno)?.map_err(|why| contended(why, attempts))
            }
            // A program may still be on its way to write.
            Ok(Outcome::TimedOut) => {
                self.loaded = None;
                Err(contended(Contention::LockTimeout, attempts))
            }
            Ok(Outcome::Killed) => Err(Error::os(
                "wait for the observer",
                io::Error::other("something killed it"),
            )),
            Err(e) => {
                self.loaded = None;
                Err(Error::os("start the observer", e))
            }
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

fn request(address: &Address, observer: &Observer, look: &WalkReply) -> WalkRequest {
    WalkRequest {
        inode: address.inode,
        mode: Mode::Locked as u32,
        observer: observer.pid(),
        pidns_level: look.pidns_level,
        pidns_inode: look.pidns_inode,
        page_shift: page_shift(),
        pad: [0; 7],
    }
}

/// What the program and the observer's call say together.
fn judge(address: &Address, reply: &WalkReply, errno: i32) -> Result<Result<usize, Contention>> {
    match reply.status() {
        Some(Status::NotLocked) => Err(unsupported(
            "this kernel's tracepoint io_uring_register fires after the unlock; \
             Linux 6.13 and later fire it before"
                .into(),
        )),
        // The call did not come as far as the tracepoint.
        Some(Status::NotFound) => Err(not_permitted(
            "call io_uring_register(2) on the ring",
            io::Error::from_raw_os_error(errno),
        )),
        _ => outcome(address, reply),
    }
}

fn new_observer(ring: &OwnedFd) -> Result<Observer> {
    // A child would become the init of a namespace that has none yet, and end it.
    let own = std::fs::read_link("/proc/self/ns/pid").ok();
    if own != std::fs::read_link("/proc/self/ns/pid_for_children").ok() {
        return Err(unsupported(
            "children of this process begin a pid namespace of their own (unshare(2)): \
             fork first"
                .into(),
        ));
    }
    Observer::new(ring.as_fd()).map_err(|e| not_permitted("clone an observer", e))
}

fn unsupported(why: String) -> Error {
    Error::Unsupported {
        backend: Backend::TaskFile,
        what: "read under uring_lock",
        why,
    }
}

fn not_permitted(operation: &str, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::PermissionDenied => Error::NotPermitted {
            operation: operation.into(),
            needs: "a seccomp filter or security module forbids it",
            source,
        },
        _ => Error::os(operation, source),
    }
}

/// A descriptor of the ring, for as long as one walk takes.
fn copy_descriptor(walker: &mut Walker) -> Result<OwnedFd> {
    let address = walker.address().clone();
    let mut refused = None;
    let mut found = false;
    let mut out_of_reach = false;
    for place in &address.places {
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
            Ok(copy) if inode_of(&copy) == Ok(address.inode) => return Ok(copy),
            Err(error @ Error::NotPermitted { .. }) => refused = Some(error),
            _ => {}
        }
    }
    if let Some(error) = refused {
        return Err(error);
    }
    if found && !out_of_reach {
        return Err(address.gone());
    }
    // Gone, or there and out of reach.
    walker.look(Mode::Peek)?;
    Err(unsupported(match found {
        true => "no descriptor of the ring could be copied: it is that of a thread \
                 with descriptors of its own, which takes Linux 6.9"
            .into(),
        false => "that takes a descriptor of the ring, and its holders have none".into(),
    }))
}

fn inode_of(fd: &OwnedFd) -> Result<u64, Errno> {
    rustix::fs::fstat(fd).map(|stat| stat.st_ino)
}
