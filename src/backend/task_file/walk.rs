//! Reads a table of one ring.

use std::io;
use std::os::fd::OwnedFd;

use crate::backend::maps::{self, Maps};
use crate::backend::program::{self, Forms, Programs};
use crate::backend::select::{check_bpf, NotOpened};
use crate::choice::Reason;
use crate::error::{Contention, Error, LockOwner, Result};
use crate::locator::{Locator, Place};
use crate::record::wire::{comm, Mode, Status, WalkReply, WalkRequest};
use crate::record::Dumped;
use crate::ring::Via;
use crate::sys::bpf::Tasks;

const BY_FILE: Forms = Forms {
    direct: &[c"dump_file"],
    compat: &[c"dump_file_compat"],
};
const BY_TASK: Forms = Forms {
    direct: &[c"dump_task"],
    compat: &[c"dump_task_compat"],
};
const BY_MAPPING: Forms = Forms {
    direct: &[c"dump_task"],
    compat: &[c"dump_vma_compat"],
};

/// Reads a table of one ring, again and again.
pub(crate) struct Walker<R> {
    address: Locator,
    /// Which place of the address is linked.
    at: usize,
    /// To its thread, not to its process.
    by_thread: bool,
    loaded: Loaded<R>,
}

/// Programs for one kind of place, linked to one process.
struct Loaded<R> {
    link: OwnedFd,
    maps: Maps<R>,
    programs: Programs,
    capacity: usize,
}

impl<R: Dumped> Walker<R> {
    pub(crate) fn open(address: Locator) -> Result<Self, NotOpened> {
        check_bpf().map_err(NotOpened::Refused)?;
        Ok(Self {
            loaded: Loaded::load(address.places[0], R::ROOM.first)?,
            address,
            at: 0,
            by_thread: false,
        })
    }

    /// Another ring; what is loaded stays loaded if it serves.
    pub(crate) fn attach(&mut self, address: Locator) -> Result<(), NotOpened> {
        self.go_to(address.places[0])?;
        self.address = address;
        self.at = 0;
        Ok(())
    }

    fn go_to(&mut self, place: Place) -> Result<(), NotOpened> {
        if place.kind() == self.address.places[self.at].kind() {
            let programs = &self.loaded.programs;
            self.loaded.link = programs.link(programs.names[0], Tasks::Process(place.pid))?;
        } else {
            self.loaded = Loaded::load(place, self.loaded.capacity)?;
        }
        self.by_thread = false;
        Ok(())
    }

    fn go_to_thread(&mut self, tid: u32) -> Result<()> {
        let programs = &self.loaded.programs;
        self.loaded.link = programs.link(programs.names[0], Tasks::Thread(tid))?;
        self.by_thread = true;
        Ok(())
    }

    pub(crate) fn address(&self) -> &Locator {
        &self.address
    }

    /// Walks the table once: its size, or what was in the way. `which` says
    /// which one, where a ring has several.
    pub(crate) fn walk(&mut self, mode: Mode, which: u64) -> Result<Result<usize, Contention>> {
        loop {
            let reply = self.look(mode, which)?;
            let nr = reply.nr_slots as usize;
            match maps::room_for::<R>(nr) {
                Some(capacity) if reply.status() == Some(Status::TooMany) => {
                    self.grow(capacity)?;
                }
                _ => return outcome::<R>(&self.address, which, &reply),
            }
        }
    }

    /// Looks at the ring at the first place that still has it.
    pub(crate) fn look(&mut self, mode: Mode, which: u64) -> Result<WalkReply> {
        loop {
            let reply = self.run(mode, which)?;
            if reply.status() != Some(Status::NotFound) {
                self.address.met(&reply);
                return Ok(reply);
            }
            let here = self.address.places[self.at];
            // Before 6.7 a look at a process passes over threads with
            // descriptors of their own: it asked the one before each
            // (task_group_seq_get_next, kernel/bpf/task_iter.c).
            if here.tid != here.pid && !self.by_thread {
                self.go_to_thread(here.tid)?;
                continue;
            }
            // This holder let go of it; another may still have it. One look
            // at it sees all that it has of a kind.
            let same = |place: &Place| {
                (place.pid, place.tid, place.kind()) == (here.pid, here.tid, here.kind())
            };
            let next = (self.at + 1..self.address.places.len())
                .find(|&at| !same(&self.address.places[at]))
                .ok_or_else(|| self.address.gone())?;
            self.go_to(self.address.places[next]).map_err(|e| match e {
                NotOpened::Failed(error) => error,
                NotOpened::Refused(_) => self.address.gone(),
            })?;
            self.at = next;
        }
    }

    fn run(&mut self, mode: Mode, which: u64) -> Result<WalkReply> {
        self.loaded.maps.ask(WalkRequest {
            mode: mode as u32,
            ..self.address.request(which)
        })?;
        program::run(&self.loaded.link)?;
        self.loaded.maps.answer()
    }

    fn grow(&mut self, capacity: usize) -> Result<()> {
        let place = self.address.places[self.at];
        self.loaded = Loaded::load(place, capacity).map_err(|e| no_room(capacity, e))?;
        self.by_thread = false;
        Ok(())
    }

    pub(crate) fn records(&self, nr: usize) -> Result<&[R]> {
        self.loaded.maps.records(nr)
    }
}

impl<R: Dumped> Loaded<R> {
    fn load(place: Place, capacity: usize) -> Result<Self, NotOpened> {
        let forms = match place.via {
            Via::Descriptor(_) => BY_FILE,
            Via::Registered(_) => BY_TASK,
            Via::Mapping => BY_MAPPING,
        };
        let programs = Programs::load(|| maps::open::<R>(capacity), forms)?;
        let link = programs
            .link(programs.names[0], Tasks::Process(place.pid))
            .map_err(refuse_if_forbidden)?;
        Ok(Self {
            link,
            maps: Maps::of(&programs.object, capacity)?,
            programs,
            capacity,
        })
    }
}

/// What was loaded before cannot be loaded with more room.
pub(crate) fn no_room(capacity: usize, error: NotOpened) -> Error {
    match error {
        NotOpened::Failed(error) => error,
        NotOpened::Refused(reason) => Error::os(
            format!("make room for {capacity} records: {reason}"),
            io::ErrorKind::OutOfMemory,
        ),
    }
}

/// A kernel or security module that loads a program and forbids its use.
fn refuse_if_forbidden(error: Error) -> NotOpened {
    match error {
        Error::Os { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            NotOpened::Refused(Reason::NotPermitted(source))
        }
        error => NotOpened::Failed(error),
    }
}

/// What a reply says about the walk.
pub(crate) fn outcome<R: Dumped>(
    address: &Locator,
    which: u64,
    reply: &WalkReply,
) -> Result<Result<usize, Contention>> {
    Ok(match reply.status() {
        Some(Status::Done) => Ok(reply.nr_slots as usize),
        Some(Status::Changed) => Err(Contention::Changed),
        Some(Status::LockHeld) => Err(Contention::LockHeld(owner(reply))),
        Some(Status::TooMany) => {
            return Err(Error::TableTooLarge {
                what: address.name().to_string(),
                slots: reply.nr_slots.into(),
                max: R::ROOM.max,
            })
        }
        Some(Status::NotFound) => return Err(address.gone()),
        Some(Status::CutShort) => {
            return Err(Error::malformed(
                "the walk",
                format!("the kernel ended it before all {} slots", reply.nr_slots),
            ))
        }
        Some(Status::NoSlot) => {
            return Err(Error::NoSuchSlot {
                ring: address.inode,
                index: which,
                slots: reply.nr_slots.into(),
            })
        }
        Some(Status::NotLocked) | None => {
            return Err(Error::malformed(
                "the walk",
                format!("status {}", reply.status),
            ))
        }
    })
}

pub(crate) fn owner(reply: &WalkReply) -> LockOwner {
    LockOwner {
        pid: (reply.owner_pid != 0).then_some(reply.owner_pid),
        tid: (reply.owner_tid != 0).then_some(reply.owner_tid),
        name: comm(&reply.owner_comm),
        sleeps: reply.owner_sleeps != 0,
    }
}
