//! Finds rings by /proc: descriptors first, then mappings.

use std::collections::HashSet;
use std::ffi::CStr;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::thread;
use std::time::Duration;

use memchr::memmem;
use rustix::buffer::spare_capacity;
use rustix::fs::{statat, AtFlags, OFlags, RawDir};
use rustix::io::Errno;

use crate::backend::fdinfo::file::read_whole;
use crate::backend::fdinfo::proc::{self, list_consistency, number, open_in, prints_under_lock};
use crate::backend::fdinfo::text::{parse, RingText, Text};
use crate::backend::reader::Search;
use crate::backend::select::NotOpened;
use crate::error::Result;
use crate::kernel;
use crate::locator::RING;
use crate::record::RegisteredBuf;
use crate::ring::{Holder, Names, Pinned, Queue, Ring, Seen, Sighting, SqPoll, Via};
use crate::tasks::Tasks;

/// Of one ring, and the pause between two.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(1);
/// Of one search: many rings may be busy.
const PAUSES: u32 = 100;

/// Opens the search.
pub(crate) fn open() -> Result<Box<dyn Search>, NotOpened> {
    proc::check()?;
    Ok(Box::new(ProcSearch::default()))
}

/// Its fields are memory, to be used again.
#[derive(Default)]
struct ProcSearch {
    text: Vec<u8>,
    bufs: Vec<RegisteredBuf>,
}

impl Search for ProcSearch {
    /// All sightings in all processes or in one, and the processes that may not
    /// be searched.
    fn look(&mut self, tasks: Tasks, mappings: bool) -> Result<Seen> {
        let mut look = Look {
            memory: self,
            mappings,
            sightings: Vec::new(),
            described: HashSet::new(),
            pauses: PAUSES,
        };
        let unseen = proc::each_process(tasks, |proc, pid, tables| look.at(proc, pid, tables))?;
        Ok(Seen {
            sightings: look.sightings,
            unseen,
        })
    }

    /// The kernel prints sums or does not, and each was asked a few times.
    fn gains_by_another_look(&self) -> bool {
        false
    }
}

/// One look at processes.
struct Look<'a> {
    memory: &'a mut ProcSearch,
    mappings: bool,
    sightings: Vec<Sighting>,
    /// The rings among them that are described.
    described: HashSet<u64>,
    /// How often it may still wait for the lock of a ring.
    pauses: u32,
}

impl Look<'_> {
    /// Looks at tables of descriptors of a process: false if one of them could not be looked
    /// at. A thread that could not be looked at to the end is not seen.
    fn at(&mut self, proc: &OwnedFd, pid: u32, tables: &[u32]) -> Result<bool> {
        let mut held = HashSet::new();
        let mut mapped = false;
        proc::each_table(pid, tables, |tid| {
            let before = self.sightings.len();
            let looked = self.at_table(proc, (pid, tid), &mut held, &mut mapped);
            if looked.is_err() {
                for lost in self.sightings.drain(before..) {
                    if lost.ring.is_some() {
                        self.described.remove(&lost.key.1);
                    }
                }
            }
            looked
        })
    }

    /// Looks at the descriptors of a thread, and at the mappings of its process if no
    /// thread has shown any yet: one that has ended has none.
    fn at_table(
        &mut self,
        proc: &OwnedFd,
        (pid, tid): (u32, u32),
        held: &mut HashSet<u64>,
        mapped: &mut bool,
    ) -> io::Result<()> {
        // All else is opened from here, so that it is of the same task.
        let path = match tid == pid {
            true => format!("{pid}/fd"),
            false => format!("{pid}/task/{tid}/fd"),
        };
        let fds = open_in(proc, &path, OFlags::DIRECTORY)?;
        let mut task = Task::new(pid, tid, fds.as_fd());
        let mut room = [MaybeUninit::uninit(); 1 << 13];
        let mut entries = RawDir::new(&fds, &mut room);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            let Some(fd) = number(name) else {
                continue;
            };
            let inode = match ring(fds.as_fd(), name) {
                Ok(Some(inode)) => inode,
                Ok(None) => continue,
                // It went meanwhile.
                Err(Errno::NOENT) => continue,
                // The numbers may be listed by one who may not look at the files.
                Err(e) => return Err(e.into()),
            };
            let holder = task.holder(Via::Descriptor(fd))?;
            // A long list is read once, however many descriptors lead to it.
            let ring = match self.described.insert(inode) {
                true => Some(self.describe(fds.as_fd(), fd, inode)),
                false => None,
            };
            self.sightings.push(sighting(inode, holder, ring));
            if self.mappings {
                held.insert(inode);
            }
        }
        if !self.mappings || *mapped {
            return Ok(());
        }
        let text = &mut self.memory.text;
        read_to_end(open_in(&fds, "../maps", OFlags::empty())?, text)?;
        *mapped = !text.is_empty();
        for inode in mapped_in(text) {
            if !held.contains(&inode) {
                let holder = task.holder(Via::Mapping)?;
                self.sightings.push(sighting(inode, holder, None));
            }
        }
        Ok(())
    }

    /// The kernel leaves out what it would take the lock for if that is taken, also by
    /// another reader of the text: for a moment, then.
    fn describe(&mut self, fds: BorrowedFd<'_>, fd: RawFd, inode: u64) -> Ring {
        for _ in 1..TRIES {
            let ring = self.memory.read(fds, fd, inode);
            if ring.pinned.is_some() || self.pauses == 0 {
                return ring;
            }
            self.pauses -= 1;
            thread::sleep(PAUSE);
        }
        self.memory.read(fds, fd, inode)
    }
}

/// The inode of a ring that is a descriptor of this name.
fn ring(fds: BorrowedFd<'_>, name: &CStr) -> Result<Option<u64>, Errno> {
    Ok(match proc::links_to(fds, name, RING)? {
        true => Some(statat(fds, name, AtFlags::empty())?.st_ino),
        false => None,
    })
}

fn sighting(inode: u64, holder: Holder, ring: Option<Ring>) -> Sighting {
    Sighting {
        key: (0, inode),
        holder,
        // One number is one holder, whatever table it is in: without CONFIG_KCMP each thread
        // is looked at.
        files: 0,
        ring,
    }
}

/// A process, of which more is asked once it is known to hold a ring.
struct Task<'a> {
    pid: u32,
    tid: u32,
    fds: BorrowedFd<'a>,
    /// Its uid and its names.
    known: Option<(u32, Names)>,
}

impl<'a> Task<'a> {
    fn new(pid: u32, tid: u32, fds: BorrowedFd<'a>) -> Self {
        Self {
            pid,
            tid,
            fds,
            known: None,
        }
    }

    fn holder(&mut self, via: Via) -> io::Result<Holder> {
        let (uid, names) = match &mut self.known {
            Some(known) => known,
            unknown => unknown.insert(ask(self.fds, self.tid != self.pid)?),
        };
        let task = (self.pid, self.tid);
        Ok(Holder::new(task, via, *uid, names.clone()))
    }
}

/// The uid of a task, and its names. (A task that has a name had not ended when it was
/// asked for its uid.)
pub(super) fn ask(fds: BorrowedFd<'_>, is_thread: bool) -> io::Result<(u32, Names)> {
    let uid = statat(fds, "..", AtFlags::empty())?.st_uid;
    let name = |path| {
        let mut name = Vec::new();
        read_whole(open_in(fds, path, OFlags::empty())?, &mut name)?;
        // The kernel ends it with a line break; it may have others.
        name.pop();
        Ok::<_, io::Error>(name)
    };
    let own = name("../comm")?;
    let names = match is_thread {
        false => Names {
            process: own,
            thread: None,
        },
        true => Names {
            process: name("../../../comm")?,
            thread: Some(own),
        },
    };
    Ok((uid, names))
}

impl ProcSearch {
    /// The ring as the text of a descriptor describes it. A ring whose text gives
    /// nothing (busy, gone, or a text that makes no sense) is a ring all the same.
    fn read(&mut self, fds: BorrowedFd<'_>, fd: RawFd, inode: u64) -> Ring {
        let Some(text) = self.text_of(fds, fd) else {
            return Ring::unknown(inode);
        };
        let ring = match text.inode.is_none_or(|other| other == inode) {
            true => described(inode, &text, &self.text),
            // The number has gone to another ring.
            false => Ring::unknown(inode),
        };
        self.bufs = text.bufs.unwrap_or_default();
        ring
    }

    fn text_of(&mut self, fds: BorrowedFd<'_>, fd: RawFd) -> Option<RingText> {
        let path = format!("../fdinfo/{fd}");
        let file = open_in(fds, &path, OFlags::empty()).ok()?;
        read_whole(file, &mut self.text).ok()?;
        let memory = mem::take(&mut self.bufs);
        match parse(&self.text, kernel::page_shift(), &path, memory) {
            Ok(Text::Ring(text)) => Some(text),
            Ok(Text::Bare { .. }) | Err(_) => None,
        }
    }
}

fn described(inode: u64, text: &RingText, bytes: &[u8]) -> Ring {
    // One line each; before 6.18, names that may hold anything.
    let lines = |list: &[u8]| memchr::memchr_iter(b'\n', list).count();
    let filled = prints_under_lock().then(|| lines(&bytes[text.files.clone()]));
    Ring {
        sq: Some(Queue {
            entries: text.sq_entries,
            head: text.sq_head,
            tail: text.sq_tail,
        }),
        cq: Some(Queue {
            entries: text.cq_entries,
            head: text.cq_head,
            tail: text.cq_tail,
        }),
        sqpoll: text.sq_thread.map(|tid| SqPoll {
            // Before 6.18 the number is that of the initial pid namespace.
            tid: prints_under_lock().then_some(tid),
            cpu: text.sq_cpu,
        }),
        nr_bufs: Some(text.nr_bufs),
        nr_files: Some(text.nr_files),
        nr_files_filled: filled.and_then(|filled| filled.try_into().ok()),
        pinned: text
            .bufs
            .as_deref()
            .map(|bufs| Pinned::of(bufs, list_consistency(bufs))),
        ..Ring::unknown(inode)
    }
}

/// The whole of a text that the kernel makes piece by piece.
fn read_to_end(file: OwnedFd, text: &mut Vec<u8>) -> io::Result<()> {
    text.clear();
    loop {
        text.reserve(1 << 12);
        if rustix::io::read(&file, spare_capacity(text))? == 0 {
            return Ok(());
        }
    }
}

/// The inodes of the rings in a /proc/PID/maps.
fn mapped_in(maps: &[u8]) -> Vec<u64> {
    let inode = |at: usize| {
        let (before, after) = maps.split_at(at);
        let start = memchr::memrchr(b'\n', before).map_or(0, |end| end + 1);
        let end = at + memchr::memchr(b'\n', after).unwrap_or(after.len());
        // address perms offset dev inode path
        let fields: Vec<&[u8]> = maps[start..end]
            .split(u8::is_ascii_whitespace)
            .filter(|field| !field.is_empty())
            .collect();
        match fields[..] {
            [_, _, _, _, inode, path] if path == RING.as_bytes() => {
                std::str::from_utf8(inode).ok()?.parse().ok()
            }
            _ => None,
        }
    };
    let mut inodes: Vec<u64> = memmem::find_iter(maps, RING).filter_map(inode).collect();
    inodes.sort_unstable();
    inodes.dedup();
    inodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_of_rings_are_told_by_their_path() {
        let maps = b"7f00-7f01 rw-s 00000000 00:10 4242          anon_inode:[io_uring]\n\
            7f02-7f03 rw-s 10000000 00:10 4242          anon_inode:[io_uring]\n\
            7f04-7f05 rw-s 00000000 00:10 17            /tmp/anon_inode:[io_uring]\n\
            7f06-7f07 rw-s 00000000 00:10 99            anon_inode:[perf_event]\n";
        assert_eq!(mapped_in(maps), [4242]);
    }
}
