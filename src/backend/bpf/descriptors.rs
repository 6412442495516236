//! Lists the descriptors of a process, with the files that they are of.

use std::io;
use std::os::fd::AsFd;

use crate::backend::bpf::iterator;
use crate::backend::bpf::maps;
use crate::backend::bpf::program::{Forms, Programs};
use crate::backend::bpf::require;
use crate::backend::bpf::table::FILES;
use crate::backend::bpf::wire::{self, WalkReply};
use crate::backend::facts::Descriptor;
use crate::backend::select::NotOpened;
use crate::error::{Error, Result};
use crate::sys::bpf::Object;
use crate::sys::link::Tasks;
use crate::sys::shared::Shared;

const LIST: Forms = Forms {
    direct: &[c"list_descriptors"],
    compat: &[c"list_descriptors_compat"],
};

/// How many descriptors there is room for at first.
const FIRST: usize = 1024;

/// The loaded program, which serves one process after another.
pub(crate) struct Lister {
    programs: Programs,
    reply: Shared<WalkReply>,
    rows: Shared<wire::Descriptor>,
}

impl Lister {
    pub(crate) fn open() -> Result<Self, NotOpened> {
        require::bpf()?;
        Self::with_room(FIRST)
    }

    fn with_room(capacity: usize) -> Result<Self, NotOpened> {
        let programs = Programs::load(|| object(capacity), LIST)?;
        let fail = |e| Error::os("mmap of a BPF map", e);
        let fd = |name| programs.object.map_fd(name).map_err(fail);
        Ok(Self {
            reply: Shared::map(fd(c".bss.reply")?, 1).map_err(fail)?,
            rows: Shared::map(fd(c"descriptors")?, capacity).map_err(fail)?,
            programs,
        })
    }

    /// All descriptors of a process, or of one thread of it.
    pub(crate) fn list(
        &mut self,
        pid: u32,
        tid: Option<u32>,
    ) -> Result<impl Iterator<Item = Descriptor> + '_, NotOpened> {
        let tasks = tid.map_or(Tasks::Process(pid), Tasks::Thread);
        let mut nr = self.walk(tasks)?;
        while self.rows.get(nr).is_none() {
            // The next look may see more.
            *self = Self::with_room(nr.saturating_mul(2))?;
            nr = self.walk(tasks)?;
        }
        let rows = self.rows.get(nr).unwrap_or_default();
        Ok(rows.iter().map(|row| Descriptor {
            fd: row.fd,
            file: row.key(),
        }))
    }

    /// The number of descriptors that it has met; those that there was room for
    /// are listed.
    fn walk(&mut self, tasks: Tasks) -> Result<usize> {
        let fail = |e| Error::os("use an iterator", e);
        self.reply.write(WalkReply::default()).map_err(fail)?;
        let link = self.programs.link(self.programs.names[0], tasks)?;
        iterator::walk_tasks(link.as_fd())?;
        Ok(self.reply.read().map_err(fail)?.nr_slots as usize)
    }
}

fn object(capacity: usize) -> io::Result<Object> {
    let mut object = maps::open(&FILES, 1)?;
    let entries = u32::try_from(capacity).map_err(|_| io::ErrorKind::OutOfMemory)?;
    object.set_max_entries(c"descriptors", entries)?;
    Ok(object)
}
