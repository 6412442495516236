//! Reads a table by an iterator that is attached to one ring or epoll set. The
//! kernel takes the lock and calls the program, which writes all records at once
//! and has the kernel stop.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use crate::backend::bpf::iterator::{self, Ended};
use crate::backend::bpf::maps::{self, Maps};
use crate::backend::bpf::native::attach::{descriptor, link};
use crate::backend::bpf::native::paths::Paths;
use crate::backend::bpf::program::{Forms, Programs};
use crate::backend::bpf::reply::{judge, no_room, owner};
use crate::backend::bpf::require;
use crate::backend::bpf::table::Table;
use crate::backend::bpf::task_file::Walker;
use crate::backend::bpf::wire::{Mode, Status, WalkRequest};
use crate::backend::reader::{How, Reader};
use crate::backend::select::NotOpened;
use crate::choice::Backend;
use crate::error::{Contention, Error, Missed, Result};
use crate::locator::Locator;
use crate::record::{BufFields, Consistency, Plain, Snapshot};
use crate::retry::Retry;
use crate::sys;

const DUMP: Forms = Forms {
    direct: &[c"dump_native"],
    compat: &[c"dump_native_compat"],
};

/// Reads a table of one ring, or an epoll set.
pub(crate) struct Native<R: 'static> {
    table: &'static Table<R>,
    locator: Locator,
    link: OwnedFd,
    maps: Maps<R>,
    programs: Programs,
    /// For a table of files: loaded when a path is asked for.
    paths: Option<Paths>,
    /// For what the iterator cannot do: opened when it is needed.
    walker: Option<Walker<R>>,
}

impl<R: Plain> Native<R> {
    pub(crate) fn open(table: &'static Table<R>, locator: Locator) -> Result<Self, NotOpened> {
        require::native(table)?;
        Self::load(table, locator, table.first)
    }

    fn load(
        table: &'static Table<R>,
        locator: Locator,
        capacity: usize,
    ) -> Result<Self, NotOpened> {
        // Is there one? But it is not kept while programs load: the ring could
        // not be closed meanwhile.
        drop(descriptor(&locator)?);
        let programs = Programs::load(|| maps::open(table, capacity), DUMP)?;
        let fd = descriptor(&locator)?;
        Ok(Self {
            link: link(&programs, fd.as_fd(), &locator)?,
            maps: Maps::of(table, &programs.object, capacity)?,
            table,
            locator,
            programs,
            paths: None,
            walker: None,
        })
    }

    /// Walks the table once, under its lock: its size.
    pub(crate) fn walk(&mut self, slot: u64) -> Result<usize, Missed> {
        loop {
            self.maps.ask(WalkRequest {
                mode: Mode::Locked as u32,
                inode: self.locator.inode,
                slot,
                set: self.locator.set,
                ..WalkRequest::default()
            })?;
            let maps = &self.maps;
            let is_done = || Ok(maps.answer()?.status() != Some(Status::NotFound));
            iterator::walk(self.link.as_fd(), is_done).map_err(|ended| match ended {
                Ended::By(errno) => iterator::missed(errno, || self.locator.gone()),
                Ended::Failed(error) => Missed::Failed(error),
            })?;
            let reply = self.maps.answer()?;
            match maps::room_for(self.table, reply.nr_slots as usize) {
                Some(capacity) if reply.status() == Some(Status::TooMany) => {
                    self.grow(capacity)?;
                }
                _ if reply.status() == Some(Status::NotFound) => {
                    return Err(Missed::Failed(Error::malformed(
                        "a native iterator",
                        "it ended without a call of its program",
                    )))
                }
                _ => return judge(self.table, &self.locator, slot, &reply),
            }
        }
    }

    /// Makes more room, if the ring or epoll set is still the same.
    fn grow(&mut self, capacity: usize) -> Result<()> {
        let larger = Self::load(self.table, self.locator.clone(), capacity)
            .map_err(|e| no_room(capacity, e))?;
        let facts = |link: &OwnedFd| {
            let facts = sys::link::link_facts(link.as_fd());
            let facts = facts.map_err(|e| Error::os("ask a link what it is", e))?;
            Ok::<_, Error>(facts.map(|facts| (facts.inode, facts.ep_id)))
        };
        if facts(&larger.link)? != facts(&self.link)? {
            return Err(self.locator.gone());
        }
        let (paths, walker) = (self.paths.take(), self.walker.take());
        *self = Self {
            paths,
            walker,
            ..larger
        };
        Ok(())
    }

    pub(crate) fn records(&self, nr: usize) -> Result<&[R]> {
        self.maps.records(nr)
    }

    fn walker(&mut self) -> Result<&mut Walker<R>> {
        Ok(match &mut self.walker {
            Some(walker) => walker,
            none => {
                let opened = Walker::open(self.table, self.locator.clone());
                none.insert(opened.map_err(|e| e.of(Backend::TaskFile))?)
            }
        })
    }

    /// EDEADLK does not name the owner of the lock; a look at the lock may.
    fn name_owner(&mut self, error: &mut Error, slot: u64) {
        let Error::Contended {
            why: why @ Contention::LockHeldUnseen,
            ..
        } = error
        else {
            return;
        };
        if let Ok(reply) = self.walker().and_then(|walker| walker.peek(slot)) {
            *why = Contention::LockHeld(owner(&reply));
        }
    }
}

impl<R: Plain> Reader<R> for Native<R> {
    fn backend(&self) -> Backend {
        Backend::Native
    }

    fn locator(&self) -> &Locator {
        &self.locator
    }

    fn attach(&mut self, locator: Locator) -> Result<(), NotOpened> {
        let fd = descriptor(&locator)?;
        self.link = link(&self.programs, fd.as_fd(), &locator)?;
        self.locator = locator;
        self.paths = None;
        self.walker = None;
        Ok(())
    }

    fn read(&mut self, how: How, slot: u64, retry: &Retry) -> Result<Snapshot<'_, R>> {
        if how == How::Raw {
            return self.walker()?.read(Mode::Raw, slot, retry);
        }
        let name = self.locator.name();
        let walked = how.bounds(retry).run(name, || self.walk(slot));
        let (nr, attempts) = walked.map_err(|mut error| {
            self.name_owner(&mut error, slot);
            error
        })?;
        Ok(Snapshot {
            records: self.records(nr)?,
            consistency: Consistency::Locked,
            backend: Backend::Native,
            unknown: BufFields::empty(),
            attempts,
        })
    }

    fn path(&mut self, slot: u64, retry: &Retry) -> Result<Option<PathBuf>> {
        let name = self.locator.name();
        let paths = match &mut self.paths {
            Some(paths) => paths,
            none => {
                let opened = Paths::open(&self.locator);
                none.insert(opened.map_err(|e| e.of(Backend::Native))?)
            }
        };
        Ok(retry.run(name, || paths.tell(slot))?.0)
    }
}
