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
//!
//! Between two walks the program stays where it is: to attach it patches the
//! kernel's code, to detach it waits for every CPU. It does nothing there, for
//! the answer of the last walk stands.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::backend::maps::{self, Maps};
use crate::backend::program::Programs;
use crate::backend::select::NotOpened;
use crate::backend::task_file::{outcome, owner, Walker};
use crate::choice::Backend;
use crate::error::{Contention, Error, Result};
use crate::locator::{Locator, NoCopy};
use crate::record::wire::{Mode, Status, WalkReply, WalkRequest};
use crate::record::Dumped;
use crate::sys::bpf;
use crate::sys::observer::{Observer, Outcome};

const PROGRAM: &CStr = c"dump_locked";
const PAUSE: Duration = Duration::from_millis(1);
/// How often a call may pass the tracepoint unseen: the kernel leaves a program out
/// on a CPU where another task is inside of it (bpf_prog_enter_recur()).
const MISSES: u32 = 3;

/// How a walk ended.
enum Walked {
    Whole(usize),
    /// For lack of room: so many records would fit.
    NoRoom(usize),
    /// The program has not seen the observer's call, which ended with this errno.
    Missed(i32),
}

/// What is needed for walks under the lock; made at the first one.
pub(crate) struct Locked<R> {
    attached: Option<Attached<R>>,
    capacity: usize,
}

/// The program at the tracepoint, and its maps.
struct Attached<R> {
    // Dropped first: then nobody writes to the maps but an abandoned observer,
    // whose program keeps them.
    _link: OwnedFd,
    maps: Maps<R>,
}

impl<R: Dumped> Default for Locked<R> {
    fn default() -> Self {
        Self {
            attached: None,
            capacity: R::ROOM.first,
        }
    }
}

impl<R: Dumped> Locked<R> {
    /// Walks the table under its lock: its size. Comes back by the deadline.
    pub(crate) fn walk(
        &mut self,
        walker: &mut Walker<R>,
        limit: Duration,
        which: u64,
    ) -> Result<usize> {
        let start = Instant::now();
        let mut missed = 0;
        loop {
            match self.walk_once(walker, start, limit, which)? {
                Walked::Whole(nr) => return Ok(nr),
                Walked::NoRoom(capacity) => self.capacity = capacity,
                // EINVAL is what the call is for.
                Walked::Missed(errno) if missed == MISSES || errno != libc::EINVAL => {
                    return Err(not_permitted(
                        "call io_uring_register(2) on the ring",
                        io::Error::from_raw_os_error(errno),
                    ))
                }
                Walked::Missed(_) => missed += 1,
            }
        }
    }

    fn walk_once(
        &mut self,
        walker: &mut Walker<R>,
        start: Instant,
        limit: Duration,
        which: u64,
    ) -> Result<Walked> {
        let ring = copy_descriptor(walker)?;
        // Put back once the answer of its walk stands, so that no later call of
        // somebody else can be taken for that of its observer.
        let mut attached = match self.attached.take() {
            Some(attached) => attached,
            None => attach(self.capacity)?,
        };
        let observer = new_observer(&ring)?;

        let name = walker.address().name();
        let mut attempts = 0;
        let contended = |why, attempts| Error::Contended {
            what: name.to_string(),
            why,
            attempts,
            elapsed: start.elapsed(),
        };
        let look = loop {
            attempts += 1;
            let look = walker.look(Mode::Peek, which)?;
            if look.owner == 0 || look.owner_sleeps == 0 {
                break look;
            }
            if start.elapsed().saturating_add(PAUSE) > limit {
                self.attached = Some(attached);
                return Err(contended(Contention::LockHeld(owner(&look)), attempts));
            }
            std::thread::sleep(PAUSE);
        };
        let maps = &mut attached.maps;
        maps.ask(request(walker.address(), which, &observer, &look))?;
        let left = limit.saturating_sub(start.elapsed()).max(PAUSE);
        let errno = match observer.run(left) {
            Ok(Outcome::Returned(errno)) => errno,
            // A program may still be on its way to write.
            Ok(Outcome::TimedOut) => return Err(contended(Contention::LockTimeout, attempts)),
            Ok(Outcome::Killed) => {
                return Err(Error::os(
                    "wait for the observer",
                    io::Error::other("something killed it"),
                ))
            }
            Err(e) => return Err(Error::os("start the observer", e)),
        };
        let reply = maps.answer()?;
        match reply.status() {
            // Either the call did not come as far as the tracepoint, or the kernel
            // has left the program out there.
            Some(Status::NotFound) => return Ok(Walked::Missed(errno)),
            Some(Status::TooMany) => {
                if let Some(capacity) = maps::room_for::<R>(reply.nr_slots as usize) {
                    return Ok(Walked::NoRoom(capacity));
                }
            }
            _ => {}
        }
        self.attached = Some(attached);
        match judge::<R>(walker.address(), which, &reply)? {
            Ok(nr) => Ok(Walked::Whole(nr)),
            Err(why) => Err(contended(why, attempts)),
        }
    }

    /// The records of the last walk.
    pub(crate) fn records(&self, nr: usize) -> Result<&[R]> {
        match &self.attached {
            Some(attached) => attached.maps.records(nr),
            None => Err(Error::malformed("the walk", "no records")),
        }
    }
}

fn attach<R: Dumped>(capacity: usize) -> Result<Attached<R>> {
    let programs =
        Programs::load_only(|| maps::open::<R>(capacity), &[PROGRAM]).map_err(|e| match e {
            NotOpened::Failed(error) => error,
            NotOpened::Refused(reason) => {
                unsupported(format!("{reason}; it takes Linux 6.13 or later"))
            }
        })?;
    let object = &programs.object;
    // Mapped before it is attached: what stands in them then asks for nothing.
    let maps = Maps::of(object, capacity)?;
    let link = object
        .program_fd(PROGRAM)
        .and_then(bpf::link_tracepoint)
        .map_err(|e| not_permitted("attach to the tracepoint io_uring_register", e))?;
    Ok(Attached { _link: link, maps })
}

fn request(address: &Locator, which: u64, observer: &Observer, look: &WalkReply) -> WalkRequest {
    WalkRequest {
        mode: Mode::Locked as u32,
        observer: observer.pid(),
        pidns_level: look.pidns_level,
        pidns: look.pidns,
        ..address.request(which)
    }
}

/// What the program says that has seen the observer's call.
fn judge<R: Dumped>(
    address: &Locator,
    which: u64,
    reply: &WalkReply,
) -> Result<Result<usize, Contention>> {
    match reply.status() {
        Some(Status::NotLocked) => Err(unsupported(
            "this kernel's tracepoint io_uring_register fires after the unlock; \
             Linux 6.13 and later fire it before"
                .into(),
        )),
        _ => outcome::<R>(address, which, reply),
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
fn copy_descriptor<R: Dumped>(walker: &mut Walker<R>) -> Result<OwnedFd> {
    let address = walker.address();
    let why = match address.copy_descriptor() {
        Ok(copy) => return Ok(copy),
        Err(NoCopy::Refused(error)) => return Err(error),
        Err(NoCopy::Gone) => return Err(address.gone()),
        Err(NoCopy::OutOfReach) => {
            "no descriptor of the ring could be copied: it is that of a thread \
             with descriptors of its own, which takes Linux 6.9"
        }
        Err(NoCopy::None) => "that takes a descriptor of the ring, and its holders have none",
    };
    // Gone, or there and out of reach.
    walker.look(Mode::Peek, 0)?;
    Err(unsupported(why.into()))
}
