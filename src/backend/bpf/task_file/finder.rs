//! Searches tasks for the ways in which they hold rings, or epoll sets.

use std::ffi::CStr;
use std::os::fd::AsFd;

use crate::backend::bpf::iterator;
use crate::backend::bpf::program::{Forms, Programs};
use crate::backend::bpf::require;
use crate::backend::bpf::wire;
use crate::backend::reader::Search;
use crate::backend::select::NotOpened;
use crate::error::{Error, Result};
use crate::kernel::page_shift;
use crate::record::Plain;
use crate::ring::Seen;
use crate::sys::bpf::Object;
use crate::sys::shared::Shared;
use crate::tasks::Tasks;

/// The facts about a search whose programs write sightings `S`.
pub(crate) struct Wanted<S> {
    /// In words.
    pub(crate) what: &'static str,
    /// The compiled programs.
    pub(crate) object: fn() -> &'static [u8],
    pub(crate) forms: Forms,
    /// The walks of one search, in this order: by which program, and for which part of
    /// the ways to hold it. There are those of the form that is loaded.
    pub(crate) walks: &'static [(&'static CStr, u8)],
    pub(crate) decode: fn(&[S]) -> Result<Seen>,
}

/// The number of sightings that there is room for at first: more take another load.
const FIRST: usize = 8192;

/// Searches tasks for the ways in which they hold rings, or epoll sets.
pub(crate) struct Finder<S: 'static> {
    wanted: &'static Wanted<S>,
    request: Shared<wire::FindRequest>,
    reply: Shared<wire::FindReply>,
    sightings: Shared<S>,
    capacity: usize,
    runs: u64,
    programs: Programs,
}

impl<S: Plain> Finder<S> {
    pub(crate) fn open(wanted: &'static Wanted<S>) -> Result<Self, NotOpened> {
        require::bpf()?;
        Self::with_capacity(wanted, FIRST)
    }

    fn with_capacity(wanted: &'static Wanted<S>, capacity: usize) -> Result<Self, NotOpened> {
        let entries = u32::try_from(capacity).unwrap_or(u32::MAX);
        let programs = Programs::load(
            || {
                let mut object = Object::open((wanted.object)())?;
                object.set_max_entries(c"sightings", entries)?;
                Ok(object)
            },
            wanted.forms,
        )?;
        let fail = |e| Error::os("mmap of a BPF map", e);
        let fd = |name| programs.object.map_fd(name).map_err(fail);
        Ok(Self {
            wanted,
            request: Shared::map(fd(c".bss.request")?, 1).map_err(fail)?,
            reply: Shared::map(fd(c".bss.reply")?, 1).map_err(fail)?,
            sightings: Shared::map(fd(c"sightings")?, capacity).map_err(fail)?,
            capacity,
            runs: 0,
            programs,
        })
    }

    /// Walks, one time after the other into the same map: the number of sightings.
    fn walk(&mut self, tasks: Tasks, mappings: bool) -> Result<usize> {
        self.runs += 1;
        let fail = |e| Error::os("use a finder", e);
        self.reply.write(wire::FindReply::default()).map_err(fail)?;
        let loaded = self.programs.names;
        let is_wanted =
            |program, part| loaded.contains(&program) && (mappings || part != wire::FIND_MAPPED);
        for &(program, part) in self.wanted.walks {
            if !is_wanted(program, part) {
                continue;
            }
            self.request
                .write(wire::FindRequest {
                    run: self.runs,
                    page_shift: page_shift(),
                    part,
                    alone: matches!(tasks, Tasks::Thread(_)).into(),
                    pad: [0; 5],
                })
                .map_err(fail)?;
            let link = self.programs.link(program, tasks)?;
            iterator::walk_tasks(link.as_fd())?;
        }
        let nr = self.reply.read().map_err(fail)?.nr;
        Ok(usize::try_from(nr).unwrap_or(usize::MAX))
    }

    /// Room for twice as many: the next look may see more.
    fn grow(&mut self, nr: usize) -> Result<()> {
        let capacity = nr.saturating_mul(2);
        if u32::try_from(capacity).is_err() || capacity <= self.capacity {
            let what = format!("{nr} sightings");
            return Err(Error::malformed(self.origin(), what));
        }
        *self = Self::with_capacity(self.wanted, capacity).map_err(|e| match e {
            NotOpened::Failed(error) => error,
            NotOpened::Refused(reason) => Error::os(
                format!(
                    "make room for {nr} sightings of {}: {reason}",
                    self.wanted.what
                ),
                std::io::ErrorKind::OutOfMemory,
            ),
        })?;
        Ok(())
    }

    fn origin(&self) -> String {
        format!("the search for {}", self.wanted.what)
    }
}

impl<S: Plain> Search for Finder<S> {
    /// Comes back with more room as often as there were more sightings than room.
    fn look(&mut self, tasks: Tasks, mappings: bool) -> Result<Seen> {
        loop {
            let nr = self.walk(tasks, mappings)?;
            if let Some(sightings) = self.sightings.get(nr) {
                return (self.wanted.decode)(sightings);
            }
            self.grow(nr)?;
        }
    }

    fn gains_by_another_look(&self) -> bool {
        true
    }
}
