//! Finds epoll sets by /proc: the links of descriptors, of each table of descriptors in
//! each process. kcmp(2) says which of them are of one file, and which threads share a
//! table; without it a file with several descriptors is several sets, and a thread's own
//! descriptor goes unseen if its number is a set of another thread, too.

use std::collections::HashSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use rustix::fs::{statat, AtFlags, OFlags, RawDir, CWD};

use crate::backend::fdinfo::proc::{self, is_gone};
use crate::backend::fdinfo::search::{ask, number, numbers_in, open_in};
use crate::backend::reader::Search;
use crate::backend::select::NotOpened;
use crate::error::{Error, Permission, Result};
use crate::locator::EPOLL;
use crate::ring::{Holder, Seen, Sighting, Unseen, UnseenReason, Via};
use crate::sys::kcmp;
use crate::tasks::{process_of, Tasks};

/// Opens the search.
pub(crate) fn open() -> Result<Box<dyn Search>, NotOpened> {
    proc::check()?;
    Ok(Box::new(ProcSearch))
}

struct ProcSearch;

impl Search for ProcSearch {
    fn look(&mut self, tasks: Tasks, _mappings: bool) -> Result<Seen> {
        let fail = |e| Error::os("read /proc (is it mounted?)", e);
        let proc = open_in(CWD, "/proc", OFlags::DIRECTORY).map_err(fail)?;
        let pids = match tasks {
            Tasks::All => numbers_in(&proc).map_err(fail)?,
            Tasks::Process(pid) => vec![pid],
            Tasks::Thread(tid) => vec![process_of(tid)?],
        };
        let alone = match tasks {
            Tasks::Thread(tid) => Some(tid),
            Tasks::All | Tasks::Process(_) => None,
        };
        let mut seen = Seen::default();
        let mut files = Files::default();
        for one in pids {
            let before = seen.sightings.len();
            match look_at(&proc, one, alone, &mut files, &mut seen.sightings) {
                Ok(()) => continue,
                Err(e) if is_gone(&e) => {}
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied && tasks != Tasks::All => {
                    return Err(Error::NotPermitted {
                        operation: format!("look at the descriptors of process {one}"),
                        needs: Permission::ReadProc,
                        source: e,
                    });
                }
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => seen.unseen.push(Unseen {
                    pid: one,
                    why: UnseenReason::NotPermitted,
                }),
                Err(e) => return Err(Error::os(format!("look at process {one} in /proc"), e)),
            }
            // One that could not be looked at to the end is not seen.
            seen.sightings.truncate(before);
        }
        Ok(seen)
    }

    fn gains_by_another_look(&self) -> bool {
        false
    }
}

/// All tables of descriptors of a process, or that of one thread.
fn look_at(
    proc: &OwnedFd,
    pid: u32,
    alone: Option<u32>,
    files: &mut Files,
    sightings: &mut Vec<Sighting>,
) -> io::Result<()> {
    // All else is opened from here, so that it is of the same process.
    let tasks = open_in(proc, &format!("{pid}/task"), OFlags::DIRECTORY)?;
    let mut tids = numbers_in(&tasks)?;
    // The leader first: most threads share its descriptors.
    tids.sort_unstable_by_key(|&tid| (tid != pid, tid));
    tids.retain(|&tid| alone.is_none_or(|alone| tid == alone));
    let mut tables: Vec<u32> = Vec::new();
    let mut known = HashSet::new();
    let mut refused = None;
    for tid in tids {
        // False where that is not known: then by the numbers that are new.
        let is_shared = |&of: &u32| kcmp::shares_descriptors(tid, of).unwrap_or(false);
        if tables.iter().any(is_shared) {
            continue;
        }
        let knows_tables = tid == pid || kcmp::shares_descriptors(tid, tid).is_ok();
        let fds = match open_in(&tasks, &format!("{tid}/fd"), OFlags::DIRECTORY) {
            Ok(fds) => fds,
            // A thread that ended meanwhile has none.
            Err(e) if tid != pid && is_gone(&e.into()) => continue,
            // Nobody but root may look at a leader that has ended, which has none either.
            Err(e) => {
                refused = Some(e);
                continue;
            }
        };
        let mut task = None;
        for (fd, inode) in sets_in(&fds)? {
            if !known.insert(fd) && !knows_tables {
                continue;
            }
            let (uid, names) = match &mut task {
                Some(known) => known,
                unknown => unknown.insert(ask(fds.as_fd(), tid != pid)?),
            };
            sightings.push(Sighting {
                key: (files.number_of(kcmp::Of { tid, fd }), inode),
                holder: Holder::new((pid, tid), Via::Descriptor(fd), *uid, names.clone()),
                files: tid.into(),
                ring: None,
            });
        }
        tables.push(tid);
    }
    match refused {
        Some(e) if tables.is_empty() => Err(e.into()),
        _ => Ok(()),
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
        // A descriptor that went meanwhile is none.
        if !matches!(proc::links_to(fds, name, EPOLL), Ok(true)) {
            continue;
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
        let mut is_comparable = true;
        while from < to {
            let middle = from + (to - from) / 2;
            match kcmp::file(self.known[middle].0, file) {
                Ok(std::cmp::Ordering::Equal) => return self.known[middle].1,
                Ok(std::cmp::Ordering::Less) => from = middle + 1,
                Ok(std::cmp::Ordering::Greater) => to = middle,
                Err(_) => {
                    is_comparable = false;
                    break;
                }
            }
        }
        self.last += 1;
        if is_comparable {
            self.known.insert(from, (file, self.last));
        }
        self.last
    }
}
