//! Walks a table without its lock.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::backend::bpf::iterator;
use crate::backend::bpf::maps::{self, Maps};
use crate::backend::bpf::program::{Forms, Programs};
use crate::backend::bpf::reply::{judge, no_room};
use crate::backend::bpf::require;
use crate::backend::bpf::table::Table;
use crate::backend::bpf::wire::{Mode, Status, WalkReply, WalkRequest};
use crate::backend::select::NotOpened;
use crate::choice::{Backend, Reason};
use crate::error::{Contention, Error, Missed, Result};
use crate::locator::{Kind, Locator, Place};
use crate::record::{BufFields, Consistency, Plain, Snapshot};
use crate::retry::Retry;
use crate::ring::Via;
use crate::sys::link::Tasks;

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
pub(crate) struct Walker<R: 'static> {
    table: &'static Table<R>,
    locator: Locator,
    /// The place of the locator that is linked.
    at: usize,
    /// To its thread, not to its process.
    by_thread: bool,
    /// The epoll set that was met, opaque: from then on it is that one.
    set: u64,
    loaded: Loaded<R>,
}

/// Programs for one kind of place, linked to one process.
struct Loaded<R: 'static> {
    link: OwnedFd,
    maps: Maps<R>,
    programs: Programs,
    capacity: usize,
}

impl<R: Plain> Walker<R> {
    pub(crate) fn open(table: &'static Table<R>, locator: Locator) -> Result<Self, NotOpened> {
        require::bpf()?;
        Ok(Self {
            loaded: Loaded::load(table, locator.places[0], table.first)?,
            table,
            locator,
            at: 0,
            by_thread: false,
            set: 0,
        })
    }

    /// Another ring; what is loaded stays loaded if it serves.
    pub(crate) fn attach(&mut self, locator: Locator) -> Result<(), NotOpened> {
        self.go_to(locator.places[0])?;
        self.locator = locator;
        self.at = 0;
        self.set = 0;
        Ok(())
    }

    fn go_to(&mut self, place: Place) -> Result<(), NotOpened> {
        if place.kind() == self.locator.places[self.at].kind() {
            let programs = &self.loaded.programs;
            self.loaded.link = programs.link(programs.names[0], Tasks::Process(place.pid))?;
        } else {
            self.loaded = Loaded::load(self.table, place, self.loaded.capacity)?;
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

    pub(crate) fn locator(&self) -> &Locator {
        &self.locator
    }

    /// Reads the table without its lock.
    pub(crate) fn read(&mut self, mode: Mode, slot: u64, retry: &Retry) -> Result<Snapshot<'_, R>> {
        let name = self.locator.name();
        let (nr, attempts) = retry.run(name, || {
            let nr = self.walk(mode, slot)?;
            // Without the lock it may have met memory that was freed and used anew.
            match mode == Mode::Raw && self.records(nr).is_err() {
                true => Err(Missed::Busy(Contention::Changed)),
                false => Ok(nr),
            }
        })?;
        Ok(Snapshot {
            records: self.records(nr)?,
            consistency: match mode {
                Mode::Raw => Consistency::Raw,
                _ => Consistency::Verified,
            },
            backend: Backend::TaskFile,
            unknown: BufFields::empty(),
            attempts,
        })
    }

    /// Walks the table once: its size. The slot says which buffer, where each has
    /// a table.
    pub(crate) fn walk(&mut self, mode: Mode, slot: u64) -> Result<usize, Missed> {
        loop {
            let reply = self.ask(mode, slot)?;
            match maps::room_for(self.table, reply.nr_slots as usize) {
                Some(capacity) if reply.status() == Some(Status::TooMany) => {
                    self.grow(capacity)?;
                }
                _ => return judge(self.table, &self.locator, slot, &reply),
            }
        }
    }

    /// Looks only at the owner of the lock, at the first place that still has the
    /// ring.
    pub(crate) fn peek(&mut self, slot: u64) -> Result<WalkReply> {
        self.ask(Mode::Peek, slot)
    }

    /// The request for a walk, but for its mode.
    pub(crate) fn request(&self, slot: u64) -> WalkRequest {
        let request = WalkRequest {
            inode: self.locator.inode,
            slot,
            set: self.set,
            ..WalkRequest::default()
        };
        match (self.locator.kind, self.locator.places[0].via) {
            (Kind::Epoll, Via::Descriptor(fd)) => WalkRequest { fd, ..request },
            _ => request,
        }
    }

    /// The reply of one walk at the first place that still has the ring.
    fn ask(&mut self, mode: Mode, slot: u64) -> Result<WalkReply> {
        loop {
            let reply = self.ask_here(mode, slot)?;
            if reply.status() != Some(Status::NotFound) {
                if self.locator.kind == Kind::Epoll {
                    self.set = reply.set;
                }
                return Ok(reply);
            }
            let here = self.locator.places[self.at];
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
            let next = (self.at + 1..self.locator.places.len())
                .find(|&at| !same(&self.locator.places[at]))
                .ok_or_else(|| self.locator.gone())?;
            self.go_to(self.locator.places[next]).map_err(|e| match e {
                NotOpened::Failed(error) => error,
                NotOpened::Refused(_) => self.locator.gone(),
            })?;
            self.at = next;
        }
    }

    fn ask_here(&mut self, mode: Mode, slot: u64) -> Result<WalkReply> {
        let request = WalkRequest {
            mode: mode as u32,
            ..self.request(slot)
        };
        self.loaded.maps.ask(request)?;
        iterator::walk_tasks(self.loaded.link.as_fd())?;
        self.loaded.maps.answer()
    }

    fn grow(&mut self, capacity: usize) -> Result<()> {
        let place = self.locator.places[self.at];
        self.loaded =
            Loaded::load(self.table, place, capacity).map_err(|e| no_room(capacity, e))?;
        self.by_thread = false;
        Ok(())
    }

    pub(crate) fn records(&self, nr: usize) -> Result<&[R]> {
        self.loaded.maps.records(nr)
    }
}

impl<R: Plain> Loaded<R> {
    fn load(table: &'static Table<R>, place: Place, capacity: usize) -> Result<Self, NotOpened> {
        let forms = match place.via {
            Via::Descriptor(_) => BY_FILE,
            Via::Registered(_) => BY_TASK,
            Via::Mapping => BY_MAPPING,
        };
        let programs = Programs::load(|| maps::open(table, capacity), forms)?;
        let link = programs
            .link(programs.names[0], Tasks::Process(place.pid))
            .map_err(refuse_if_forbidden)?;
        Ok(Self {
            link,
            maps: Maps::of(table, &programs.object, capacity)?,
            programs,
            capacity,
        })
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
