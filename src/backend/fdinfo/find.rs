//! Finds rings by /proc: descriptors first, then mappings.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::Duration;

use crate::backend::fdinfo::reader::{is_gone, list_consistency, prints_under_lock};
use crate::backend::fdinfo::text::{parse, Text};
use crate::error::{Error, Result};
use crate::find::{Details, Sighting};
use crate::ring::{Holder, Pinned, Queue, SqPoll, Unseen, Via};

const RING: &[u8] = b"anon_inode:[io_uring]";

/// Of one ring, and the pause between two.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(1);
/// Of one search: many rings may be busy.
const PAUSES: u32 = 100;

/// All sightings in all processes or in one, and the processes that may not
/// be looked at.
pub(crate) fn find(pid: Option<u32>, mappings: bool) -> Result<(Vec<Sighting>, Vec<Unseen>)> {
    let pids = match pid {
        Some(pid) => vec![pid],
        None => processes()?,
    };
    let mut found = Vec::new();
    let mut unseen = Vec::new();
    let mut known = Known {
        described: HashSet::new(),
        pauses: PAUSES,
    };
    for one in pids {
        match look_at(one, mappings, &mut known) {
            Ok(sightings) => found.extend(sightings),
            Err(e) if is_gone(&e) => {}
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                if pid.is_some() {
                    return Err(Error::NotPermitted {
                        operation: format!("look at the descriptors of process {one}"),
                        needs: "be root, have CAP_SYS_PTRACE, or be the user it runs as",
                        source: e,
                    });
                }
                unseen.push(Unseen {
                    pid: one,
                    why: "its descriptors may not be looked at".into(),
                });
            }
            Err(e) => return Err(Error::os(format!("look at process {one} in /proc"), e)),
        }
    }
    Ok((found, unseen))
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

/// What one search has said of rings.
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
    let sighting = |inode, via, details| Sighting {
        key: (0, inode),
        holder: Holder {
            pid,
            tid: pid,
            via,
            uid,
            name: name.clone(),
        },
        files: 0,
        details,
    };
    let mut all = Vec::new();
    let mut held = HashSet::new();
    for entry in fs::read_dir(format!("{process}/fd"))? {
        let path = entry?.path();
        let is_ring =
            fs::read_link(&path).is_ok_and(|to| to.as_os_str().as_encoded_bytes() == RING);
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
        let details = match known.described.insert(inode) {
            true => Some(describe(pid, fd, &mut known.pauses)),
            false => None,
        };
        all.push(sighting(inode, Via::Descriptor(fd), details));
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
fn describe(pid: u32, fd: RawFd, pauses: &mut u32) -> Details {
    for _ in 1..TRIES {
        let details = read(pid, fd);
        if details.pinned.is_some() || *pauses == 0 {
            return details;
        }
        *pauses -= 1;
        thread::sleep(PAUSE);
    }
    read(pid, fd)
}

/// What the text of a descriptor says. A ring of which no more can be learned
/// (busy, gone, or a text that makes no sense) is a ring all the same.
fn read(pid: u32, fd: RawFd) -> Details {
    let path = format!("/proc/{pid}/fdinfo/{fd}");
    let page_shift = rustix::param::page_size().trailing_zeros() as u8;
    let text = fs::read(&path).map(|bytes| parse(&bytes, page_shift, &path));
    let Ok(Ok(Text::Ring(ring))) = text else {
        return Details::default();
    };
    Details {
        sq: Some(Queue {
            entries: ring.sq_entries,
            head: ring.sq_head,
            tail: ring.sq_tail,
        }),
        cq: Some(Queue {
            entries: ring.cq_entries,
            head: ring.cq_head,
            tail: ring.cq_tail,
        }),
        sqpoll: ring.sq_thread.map(|tid| SqPoll {
            // Before 6.18 the number is that of the initial pid namespace.
            tid: prints_under_lock().then_some(tid),
            cpu: ring.sq_cpu,
        }),
        nr_bufs: Some(ring.nr_bufs),
        nr_files: Some(ring.nr_files),
        pinned: ring
            .bufs
            .as_deref()
            .map(|bufs| Pinned::of(bufs, list_consistency(bufs))),
        ..Details::default()
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
                [_, _, _, _, inode, RING] => std::str::from_utf8(inode).ok()?.parse().ok(),
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
