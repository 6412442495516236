//! The rings of a whole machine, each in a process of its own.

use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{openat, readlinkat_raw, Mode, OFlags, RawDir, CWD};
use rustix::io::Errno;
use uring_bpf_iter::{Backend, RingFinder};

use crate::bench::{Bench, Candidate, Case, Result};
use crate::holders::{Hold, Holders};
use crate::tools;

const RINGS: &[usize] = &[1, 100, 1000];

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let numbers = if bench.once { &RINGS[..1] } else { RINGS };
    let mut holders = Holders::new(Hold {
        rings: 1,
        buffers: 1,
        processes: 1,
    })?;
    for &items in numbers {
        if bench.machine.is_emulated() && items > 100 {
            let why = "an emulated processor takes too long to start so many processes";
            bench.leave_out(format!("discover, {items}"), why);
            continue;
        }
        holders.grow(items)?;
        let mut all = Vec::new();
        for (name, backend, mappings) in [
            ("task-file", Backend::TaskFile, true),
            ("task-file, no mappings", Backend::TaskFile, false),
            ("fdinfo, this crate", Backend::Fdinfo, true),
            ("fdinfo, this crate, no mappings", Backend::Fdinfo, false),
        ] {
            let made = library(name, &holders, backend, mappings);
            all.extend(bench.candidate("discover", name, made)?);
        }
        let check = |found: Vec<u32>| holders.all_found(found.into_iter());
        all.extend(tools::candidates(bench, check)?);
        all.push(walk(&holders)?);
        bench.note(
            "`readlink and fdinfo`, `lsfd` and `bpftrace` see descriptors alone; task-file \
             also registered descriptors; both backends mappings, if not told to leave them out",
        );
        let case = Case {
            group: "discover",
            items,
            item: "ring",
            each: false,
        };
        bench.compare(case, all)?;
    }
    Ok(())
}

fn library<'a>(
    name: &'static str,
    holders: &Holders,
    backend: Backend,
    mappings: bool,
) -> Result<Candidate<'a>> {
    let mut finder = RingFinder::with_backend(backend)?.mappings(mappings);
    let found = finder.find_all()?.rings;
    holders.all_found(found.iter().map(|ring| ring.owner().pid))?;
    Ok(Candidate::new(name, move || {
        Ok(finder.find_all()?.rings.len() as u64)
    }))
}

fn walk<'a>(holders: &Holders) -> Result<Candidate<'a>> {
    let mut walk = Walk::default();
    walk.all()?;
    holders.all_found(walk.pids.iter().copied())?;
    Ok(Candidate::new("readlink and fdinfo", move || walk.all()))
}

/// The peer: the link of each descriptor of each process, and fdinfo of those
/// that are rings. All paths are relative, and all memory is used again.
#[derive(Default)]
struct Walk {
    pids: Vec<u32>,
    fdinfo: Vec<u8>,
}

impl Walk {
    /// Bytes of text about rings.
    fn all(&mut self) -> Result<u64> {
        self.pids.clear();
        let proc = open(CWD, "/proc", OFlags::DIRECTORY)?;
        let mut bytes = 0;
        let mut entries: Vec<u8> = Vec::with_capacity(1 << 15);
        let mut dir = RawDir::new(&proc, entries.spare_capacity_mut());
        while let Some(entry) = dir.next() {
            let entry = entry?;
            let name = entry.file_name().to_str().unwrap_or_default();
            if let Ok(pid) = name.parse() {
                bytes += self.process(&proc, pid).or_else(gone)?;
            }
        }
        Ok(bytes)
    }

    fn process(&mut self, proc: &OwnedFd, pid: u32) -> Result<u64, Errno> {
        let fds = open(proc, &format!("{pid}/fd"), OFlags::DIRECTORY)?;
        let mut bytes = 0;
        let mut entries: Vec<u8> = Vec::with_capacity(1 << 12);
        let mut dir = RawDir::new(&fds, entries.spare_capacity_mut());
        while let Some(entry) = dir.next() {
            let entry = entry?;
            let mut link = [0; 64];
            let is_ring = match readlinkat_raw(&fds, entry.file_name(), &mut link[..]) {
                Ok(len) => &link[..len] == b"anon_inode:[io_uring]",
                Err(Errno::NOENT | Errno::INVAL) => false,
                Err(errno) => return Err(errno),
            };
            if is_ring {
                let fd = entry.file_name().to_str().unwrap_or_default();
                let text = open(proc, &format!("{pid}/fdinfo/{fd}"), OFlags::empty())?;
                self.fdinfo.clear();
                self.fdinfo.reserve(1 << 12);
                while rustix::io::read(&text, spare_capacity(&mut self.fdinfo))? > 0 {
                    self.fdinfo.reserve(1 << 12);
                }
                bytes += self.fdinfo.len() as u64;
                self.pids.push(pid);
            }
        }
        Ok(bytes)
    }
}

fn open(at: impl AsFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat(
        at,
        path,
        OFlags::RDONLY | OFlags::CLOEXEC | flags,
        Mode::empty(),
    )
}

/// A process may end while it is looked at, or may not be looked at at all.
fn gone(errno: Errno) -> Result<u64> {
    match errno {
        Errno::NOENT | Errno::SRCH | Errno::ACCESS | Errno::PERM => Ok(0),
        errno => Err(errno.into()),
    }
}
