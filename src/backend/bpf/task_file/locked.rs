//! A walk under `uring_lock`, from Linux 6.13 on.
//!
//! `io_uring_register(2)` fires its tracepoint with the lock held. An observer
//! process makes such a call, of a kind that only fails, and the program at
//! the tracepoint walks the table when it sees that very process.
//!
//! The wait for the lock has no limit in the kernel. So everything is made
//! ready first, then the owner of the lock is looked at, and only then the
//! observer may make its call. One that does not come back in time is left
//! behind with the maps that its program may still write to.
//!
//! Between two walks the observer waits, without a descriptor of the ring, and
//! the program stays where it is: to attach it patches the kernel's code, to
//! detach it waits for every CPU. It does nothing there, for the answer of the
//! last walk stands.

use std::ffi::CStr;
use std::fs::read_link;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::backend::bpf::descriptor::{self, NoCopy};
use crate::backend::bpf::maps::{self, Maps};
use crate::backend::bpf::program::Programs;
use crate::backend::bpf::reply::{judge, owner};
use crate::backend::bpf::table::Table;
use crate::backend::bpf::task_file::walk::Walker;
use crate::backend::bpf::wire::{Mode, Status, WalkReply, WalkRequest};
use crate::backend::select::NotOpened;
use crate::choice::Backend;
use crate::error::{Contention, Error, Limitation, Missed, Operation, Permission, Result};
use crate::record::Plain;
use crate::sys::link;
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
    /// Something has ended the observer.
    Alone,
}

/// Walks under the lock; made ready at the first one.
pub(crate) struct Locked<R: 'static> {
    table: &'static Table<R>,
    observer: Option<Observer>,
    attached: Option<Attached<R>>,
    capacity: usize,
}

/// The program at the tracepoint, and its maps.
struct Attached<R: 'static> {
    // Dropped first: then nobody writes to the maps but an abandoned observer,
    // whose program keeps them.
    _link: OwnedFd,
    maps: Maps<R>,
}

impl<R: Plain> Locked<R> {
    pub(crate) fn new(table: &'static Table<R>) -> Self {
        Self {
            table,
            observer: None,
            attached: None,
            capacity: table.first,
        }
    }

    /// Walks the table under its lock: its size. Comes back by the deadline.
    pub(crate) fn walk(
        &mut self,
        walker: &mut Walker<R>,
        limit: Duration,
        slot: u64,
    ) -> Result<usize> {
        let start = Instant::now();
        let (mut missed, mut alone) = (0, false);
        loop {
            match self.walk_once(walker, start, limit, slot)? {
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
                Walked::Alone if alone => {
                    return Err(Error::os(
                        "wait for the observer",
                        io::Error::other("something killed it, and another one, too"),
                    ))
                }
                Walked::Alone => alone = true,
            }
        }
    }

    fn walk_once(
        &mut self,
        walker: &mut Walker<R>,
        start: Instant,
        limit: Duration,
        slot: u64,
    ) -> Result<Walked> {
        let ring = copy_descriptor(walker)?;
        if self.attached.is_none() {
            self.attached = Some(attach(self.table, self.capacity)?);
        }
        if !self.observer.as_ref().is_some_and(Observer::is_there) {
            self.observer = Some(new_observer()?);
        }

        let name = walker.locator().name();
        let mut attempts = 0;
        let contended = |why, attempts| Error::Contended {
            what: name.to_string(),
            why,
            attempts,
            elapsed: start.elapsed(),
        };
        let look = loop {
            attempts += 1;
            let look = walker.peek(slot)?;
            if look.owner == 0 || look.owner_sleeps == 0 {
                break look;
            }
            if start.elapsed().saturating_add(PAUSE) > limit {
                return Err(contended(Contention::LockHeld(owner(&look)), attempts));
            }
            std::thread::sleep(PAUSE);
        };
        // Put back once the answer of its walk stands, so that no later call of
        // somebody else can be taken for that of its observer.
        let (Some(mut observer), Some(mut attached)) = (self.observer.take(), self.attached.take())
        else {
            return Ok(Walked::Alone);
        };
        let maps = &mut attached.maps;
        maps.ask(request(walker, slot, &observer, &look))?;
        let left = limit.saturating_sub(start.elapsed()).max(PAUSE);
        let errno = match observer.call(ring.as_fd(), left) {
            Ok(Outcome::Returned(errno)) => errno,
            // A program may still be on its way to write.
            Ok(Outcome::TimedOut) => return Err(contended(Contention::LockTimeout, attempts)),
            Ok(Outcome::Ended) => return Ok(Walked::Alone),
            Err(e) => return Err(Error::os("let the observer make its call", e)),
        };
        self.observer = Some(observer);
        let reply = maps.answer()?;
        match reply.status() {
            // Either the call did not come as far as the tracepoint, or the kernel
            // has left the program out there.
            Some(Status::NotFound) => return Ok(Walked::Missed(errno)),
            Some(Status::TooMany) => {
                if let Some(capacity) = maps::room_for(self.table, reply.nr_slots as usize) {
                    return Ok(Walked::NoRoom(capacity));
                }
            }
            _ => {}
        }
        self.attached = Some(attached);
        if reply.status() == Some(Status::NotLocked) {
            return Err(unsupported(Limitation::TracepointAfterUnlock));
        }
        match judge(self.table, walker.locator(), slot, &reply) {
            Ok(nr) => Ok(Walked::Whole(nr)),
            Err(Missed::Busy(why)) => Err(contended(why, attempts)),
            Err(Missed::Failed(error)) => Err(error),
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

fn attach<R: Plain>(table: &'static Table<R>, capacity: usize) -> Result<Attached<R>> {
    let programs = Programs::load_only(|| maps::open(table, capacity), &[PROGRAM]);
    let programs = programs.map_err(|e| match e {
        NotOpened::Failed(error) => error,
        NotOpened::Refused(reason) => unsupported(Limitation::ProgramRefused(reason)),
    })?;
    let object = &programs.object;
    // Mapped before it is attached: what stands in them then asks for nothing.
    let maps = Maps::of(table, object, capacity)?;
    let link = object
        .program_fd(PROGRAM)
        .and_then(link::link_tracepoint)
        .map_err(|e| not_permitted("attach to the tracepoint io_uring_register", e))?;
    Ok(Attached { _link: link, maps })
}

fn request<R: Plain>(
    walker: &Walker<R>,
    slot: u64,
    observer: &Observer,
    look: &WalkReply,
) -> WalkRequest {
    WalkRequest {
        mode: Mode::Locked as u32,
        observer: observer.pid(),
        pidns_level: look.pidns_level,
        pidns: look.pidns,
        ..walker.request(slot)
    }
}

fn new_observer() -> Result<Observer> {
    // A child would become the init of a namespace that has none yet, and end it.
    let own = read_link("/proc/self/ns/pid").ok();
    if own != read_link("/proc/self/ns/pid_for_children").ok() {
        return Err(unsupported(Limitation::PidNamespaceOfChildren));
    }
    Observer::new().map_err(|e| not_permitted("start an observer, which seccomp(2) confines", e))
}

fn unsupported(why: Limitation) -> Error {
    Error::Unsupported {
        backend: Backend::TaskFile,
        what: Operation::ReadLocked,
        why,
    }
}

fn not_permitted(operation: &str, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::PermissionDenied => Error::NotPermitted {
            operation: operation.into(),
            needs: Permission::Policy,
            source,
        },
        _ => Error::os(operation, source),
    }
}

/// A descriptor of the ring, for as long as one walk takes.
fn copy_descriptor<R: Plain>(walker: &mut Walker<R>) -> Result<OwnedFd> {
    let locator = walker.locator();
    let (why, was_there) = match descriptor::copy(locator) {
        Ok(copy) => return Ok(copy),
        Err(NoCopy::Refused(error)) => return Err(error),
        Err(NoCopy::OutOfReach) => (Limitation::ThreadDescriptors, false),
        Err(NoCopy::Gone) => (Limitation::NoDescriptor, true),
        Err(NoCopy::None) => (Limitation::NoDescriptor, false),
    };
    // Gone, or elsewhere, or there and out of reach.
    walker.peek(0)?;
    let found = walker.found_locator();
    match found.map(|locator| descriptor::copy(&locator)) {
        Some(Ok(copy)) => Ok(copy),
        Some(Err(NoCopy::Refused(error))) => Err(error),
        // Seen, and not copied, where it was: its process is ending.
        None if was_there => Err(walker.locator().gone()),
        _ => Err(unsupported(why)),
    }
}
