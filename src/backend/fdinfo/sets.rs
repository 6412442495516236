//! Finds epoll sets by /proc: the links of descriptors, of each table of descriptors in
//! each process. kcmp(2) says which of them are of one file, and which threads share a
//! table; without it a file with several descriptors is several sets, and a thread's own
//! descriptor goes unseen if its number is a set of another thread, too.

use std::collections::HashSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use rustix::fs::{statat, AtFlags, OFlags, RawDir};
use rustix::io::Errno;

use crate::backend::fdinfo::proc::{self, number, open_in};
use crate::backend::fdinfo::search::ask;
use crate::backend::reader::Search;
use crate::backend::select::NotOpened;
use crate::error::Result;
use crate::locator::EPOLL;
use crate::ring::{Holder, Seen, Sighting, Via};
use crate::sys::kcmp;
use crate::tasks::Tasks;

/// Opens the search.
pub(crate) fn open() -> Result<Box<dyn Search>, NotOpened> {
    proc::check()?;
    Ok(Box::new(ProcSearch))
}

struct ProcSearch;

impl Search for ProcSearch {
    fn look(&mut self, tasks: Tasks, _mappings: bool) -> Result<Seen> {
        let mut look = Look::default();
        let unseen = proc::each_process(tasks, |proc, pid, tables| look.at(proc, pid, tables))?;
        Ok(Seen {
            sightings: look.sightings,
            unseen,
        })
    }

    fn gains_by_another_look(&self) -> bool {
        false
    }
}

/// One look at processes.
#[derive(Default)]
struct Look {
    files: Files,
    sightings: Vec<Sighting>,
}

impl Look {
    /// Looks at tables of descriptors of a process: false if one of them could not be looked
    /// at.
    fn at(&mut self, proc: &OwnedFd, pid: u32, tables: &[u32]) -> Result<bool> {
        // Else each thread is in the list, and a number is a set once.
        let knows_tables = kcmp::descriptors(pid, pid).is_ok();
        let mut known = HashSet::new();
        proc::each_table(pid, tables, |tid| {
            let before = self.sightings.len();
            let looked = self.at_table(proc, (pid, tid), |fd| known.insert(fd) || knows_tables);
            if looked.is_err() {
                self.sightings.truncate(before);
            }
            looked
        })
    }

    /// Looks at the descriptors of a thread that are wanted.
    fn at_table(
        &mut self,
        proc: &OwnedFd,
        (pid, tid): (u32, u32),
        mut is_wanted: impl FnMut(RawFd) -> bool,
    ) -> io::Result<()> {
        // All else is opened from here, so that it is of the same task.
        let path = match tid == pid {
            true => format!("{pid}/fd"),
            false => format!("{pid}/task/{tid}/fd"),
        };
        let fds = open_in(proc, &path, OFlags::DIRECTORY)?;
        let mut task = None;
        for (fd, inode) in sets_in(&fds)? {
            if !is_wanted(fd) {
                continue;
            }
            let (uid, names) = match &mut task {
                Some(known) => known,
                unknown => unknown.insert(ask(fds.as_fd(), tid != pid)?),
            };
            self.sightings.push(Sighting {
                key: (self.files.number_of(kcmp::Of { tid, fd }), inode),
                holder: Holder::new((pid, tid), Via::Descriptor(fd), *uid, names.clone()),
                files: tid.into(),
                ring: None,
            });
        }
        Ok(())
    }
}

/// The descriptors in a folder that are epoll sets, and the inode of each.
fn sets_in(fds: &OwnedFd) -> io::Result<Vec<(RawFd, u64)>> {
    let mut sets = Vec::new();
    let mut room = [MaybeUninit::uninit(); 1 << 13];
    let mut entries = RawDir::new(fds, &mut room);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        let Some(fd) = number(name) else {
            continue;
        };
        match proc::links_to(fds, name, EPOLL) {
            Ok(true) => {}
            Ok(false) => continue,
            // It went meanwhile.
            Err(Errno::NOENT) => continue,
            // The numbers may be listed by one who may not look at the files.
            Err(e) => return Err(e.into()),
        }
        if let Ok(stat) = statat(fds, name, AtFlags::empty()) {
            sets.push((fd, stat.st_ino));
        }
    }
    Ok(sets)
}

/// The files that were met in one look, each with a number.
#[derive(Default)]
struct Files {
    /// In the kernel's order.
    known: Vec<(kcmp::Of, u64)>,
    last: u64,
}

impl Files {
    /// The number of a file: another one for each descriptor that cannot be compared.
    fn number_of(&mut self, file: kcmp::Of) -> u64 {
        let (mut from, mut to) = (0, self.known.len());
        while from < to {
            let middle = from + (to - from) / 2;
            match kcmp::file(self.known[middle].0, file) {
                Ok(std::cmp::Ordering::Equal) => return self.known[middle].1,
                Ok(std::cmp::Ordering::Less) => from = middle + 1,
                Ok(std::cmp::Ordering::Greater) => to = middle,
                // It is the other one that was closed.
                Err(_) if kcmp::file(file, file).is_ok() => {
                    self.known.remove(middle);
                    to -= 1;
                }
                Err(_) => break,
            }
        }
        let is_comparable = from == to;
        self.last += 1;
        if is_comparable {
            self.known.insert(from, (file, self.last));
        }
        self.last
    }
}
