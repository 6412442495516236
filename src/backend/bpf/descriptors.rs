//! Lists the descriptors of a process, with the files that they are of.

use std::io;
use std::os::fd::AsFd;

use crate::backend::bpf::iterator;
use crate::backend::bpf::maps;
use crate::backend::bpf::program::{Forms, Programs};
use crate::backend::bpf::table::FILES;
use crate::backend::bpf::wire::{self, WalkReply};
use crate::backend::facts::Descriptor;
use crate::backend::select::NotOpened;
use crate::error::Error;
use crate::sys::bpf::Object;
use crate::sys::link::Tasks;
use crate::sys::shared::Shared;

const LIST: Forms = Forms {
    direct: &[c"list_descriptors"],
    compat: &[c"list_descriptors_compat"],
};

/// All descriptors of a process.
pub(crate) fn list(pid: u32) -> Result<Vec<Descriptor>, NotOpened> {
    let mut capacity = 1024;
    loop {
        let programs = Programs::load(|| open(capacity), LIST)?;
        let fail = |e| Error::os("mmap of a BPF map", e);
        let fd = |name| programs.object.map_fd(name).map_err(fail);
        let reply = Shared::<WalkReply>::map(fd(c".bss.reply")?, 1).map_err(fail)?;
        let rows = Shared::<wire::Descriptor>::map(fd(c"descriptors")?, capacity).map_err(fail)?;
        let link = programs.link(programs.names[0], Tasks::Process(pid))?;
        iterator::walk_tasks(link.as_fd())?;
        let nr = reply.read().map_err(fail)?.nr_slots as usize;
        if let Some(rows) = rows.get(nr) {
            let decode = |row: &wire::Descriptor| Descriptor {
                fd: row.fd,
                file: row.key(),
            };
            return Ok(rows.iter().map(decode).collect());
        }
        // The next look may see more.
        capacity = nr.saturating_mul(2);
    }
}

fn open(capacity: usize) -> io::Result<Object> {
    let mut object = maps::open(&FILES, 1)?;
    let entries = u32::try_from(capacity).map_err(|_| io::ErrorKind::OutOfMemory)?;
    object.set_max_entries(c"descriptors", entries)?;
    Ok(object)
}
