//! Finds rings by /proc: descriptors first, then mappings.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::Duration;

use crate::backend::fdinfo::proc::{self, is_gone, list_consistency, prints_under_lock};
use crate::backend::fdinfo::text::{parse, Text};
use crate::backend::reader::Search;
use crate::backend::select::NotOpened;
use crate::error::{Error, Permission, Result};
use crate::kernel;
use crate::locator::RING;
use crate::ring::{Holder, Pinned, Queue, Ring, Seen, Sighting, SqPoll, Unseen, UnseenReason, Via};

/// Of one ring, and the pause between two.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(1);
/// Of one search: many rings may be busy.
const PAUSES: u32 = 100;

/// Opens the search.
pub(crate) fn open() -> Result<Box<dyn Search>, NotOpened> {
    proc::check()?;
    Ok(Box::new(ProcSearch))
}

struct ProcSearch;

impl Search for ProcSearch {
    fn look(&mut self, pid: Option<u32>, mappings: bool) -> Result<Seen> {
        look(pid, mappings)
    }

    /// The kernel prints sums or does not, and each was asked a few times.
    fn gains_by_another_look(&self) -> bool {
        false
    }
}

/// All sightings in all processes or in one, and the processes that may not
/// be searched.
fn look(pid: Option<u32>, mappings: bool) -> Result<Seen> {
    let pids = match pid {
        Some(pid) => vec![pid],
        None => processes()?,
    };
    let mut seen = Seen::default();
    let mut known = Known {
        described: HashSet::new(),
        pauses: PAUSES,
    };
    for one in pids {
        match look_at(one, mappings, &mut known) {
            Ok(sightings) => seen.sightings.extend(sightings),
            Err(e) if is_gone(&e) => {}
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                if pid.is_some() {
                    return Err(Error::NotPermitted {
                        operation: format!("look at the descriptors of process {one}"),
                        needs: Permission::ReadProc,
                        source: e,
                    });
                }
                seen.unseen.push(Unseen {
                    pid: one,
                    why: UnseenReason::NotPermitted,
                });
            }
            Err(e) => return Err(Error::os(format!("look at process {one} in /proc"), e)),
        }
    }
    Ok(seen)
}

fn processes() -> Result<Vec<u32>> {
    let fail = |e| Error::os("read /proc (is it mounted?)", e);
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    pids.sort_unstable();
    Ok(pids)
}

/// The rings that one search has described.
struct Known {
    described: HashSet<u64>,
    /// How often it may still wait for the lock of a ring.
    pauses: u32,
}

fn look_at(pid: u32, mappings: bool, known: &mut Known) -> io::Result<Vec<Sighting>> {
    let process = format!("/proc/{pid}");
    let uid = fs::metadata(&process)?.uid();
    let name = fs::read(format!("{process}/comm"))?;
    let name = String::from_utf8_lossy(name.trim_ascii_end()).into_owned();
    let sighting = |inode, via, ring| Sighting {
        key: (0, inode),
        holder: Holder {
            pid,
            tid: pid,
            via,
            uid,
            name: name.clone(),
        },
        files: 0,
        ring,
    };
    let mut all = Vec::new();
    let mut held = HashSet::new();
    for entry in fs::read_dir(format!("{process}/fd"))? {
        let path = entry?.path();
        let is_ring = fs::read_link(&path)
            .is_ok_and(|to| to.as_os_str().as_encoded_bytes() == RING.as_bytes());
        let fd = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        // A descriptor that went meanwhile is none.
        let (true, Some(fd), Ok(file)) = (is_ring, fd, fs::metadata(&path)) else {
            continue;
        };
        let inode = file.ino();
        held.insert(inode);
        // A long list is read once, however many descriptors lead to it.
        let ring = match known.described.insert(inode) {
            true => Some(describe(pid, fd, inode, &mut known.pauses)),
            false => None,
        };
        all.push(sighting(inode, Via::Descriptor(fd), ring));
    }
    if !mappings {
        return Ok(all);
    }
    for inode in mapped(&fs::read(format!("{process}/maps"))?) {
        if !held.contains(&inode) {
            all.push(sighting(inode, Via::Mapping, None));
        }
    }
    Ok(all)
}

/// The kernel leaves out what it would take the lock for if that is taken, also by
/// another reader of the text: for a moment, then.
fn describe(pid: u32, fd: RawFd, inode: u64, pauses: &mut u32) -> Ring {
    for _ in 1..TRIES {
        let ring = read(pid, fd, inode);
        if ring.pinned.is_some() || *pauses == 0 {
            return ring;
        }
        *pauses -= 1;
        thread::sleep(PAUSE);
    }
    read(pid, fd, inode)
}

/// The ring as the text of a descriptor describes it. A ring whose text gives
/// nothing (busy, gone, or a text that makes no sense) is a ring all the same.
fn read(pid: u32, fd: RawFd, inode: u64) -> Ring {
    let path = format!("/proc/{pid}/fdinfo/{fd}");
    let text = fs::read(&path).map(|bytes| parse(&bytes, kernel::page_shift(), &path));
    let Ok(Ok(Text::Ring(text))) = text else {
        return Ring::unknown(inode);
    };
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
        pinned: text
            .bufs
            .as_deref()
            .map(|bufs| Pinned::of(bufs, list_consistency(bufs))),
        ..Ring::unknown(inode)
    }
}

/// The inodes of the rings in a /proc/PID/maps.
fn mapped(maps: &[u8]) -> Vec<u64> {
    let mut inodes: Vec<u64> = maps
        .split(|&b| b == b'\n')
        .filter_map(|line| {
            // address perms offset dev inode path
            let fields: Vec<&[u8]> = line
                .split(u8::is_ascii_whitespace)
                .filter(|field| !field.is_empty())
                .collect();
            match fields[..] {
                [_, _, _, _, inode, path] if path == RING.as_bytes() => {
                    std::str::from_utf8(inode).ok()?.parse().ok()
                }
                _ => None,
            }
        })
        .collect();
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
        assert_eq!(mapped(maps), [4242]);
    }
}
