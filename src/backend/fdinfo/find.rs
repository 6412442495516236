//! Finds rings by /proc: descriptors first, then mappings.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;

use crate::backend::fdinfo::reader::{list_consistency, prints_under_lock};
use crate::backend::fdinfo::text::{parse, RingText, Text};
use crate::error::{Error, Result};
use crate::find::Sighting;
use crate::ring::{Holder, Pinned, Queue, SqPoll, Unseen, Via};

const RING: &[u8] = b"anon_inode:[io_uring]";

/// All sightings in all processes or in one, and the processes that may not
/// be looked at.
pub(crate) fn find(pid: Option<u32>) -> Result<(Vec<Sighting>, Vec<Unseen>)> {
    let pids = match pid {
        Some(pid) => vec![pid],
        None => processes()?,
    };
    let mut found = Vec::new();
    let mut unseen = Vec::new();
    for one in pids {
        match look_at(one) {
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

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

fn look_at(pid: u32) -> io::Result<Vec<Sighting>> {
    let process = format!("/proc/{pid}");
    let uid = fs::metadata(&process)?.uid();
    let name = fs::read(format!("{process}/comm"))?;
    let name = String::from_utf8_lossy(name.trim_ascii_end()).into_owned();
    let holder = |via| Holder {
        pid,
        tid: pid,
        via,
        uid,
        name: name.clone(),
    };
    let mut found = HashMap::new();
    let mut all = Vec::new();
    for entry in fs::read_dir(format!("{process}/fd"))? {
        let entry = entry?;
        let is_ring = fs::read_link(entry.path())
            .is_ok_and(|target| target.as_os_str().as_encoded_bytes() == RING);
        let Some(fd) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        if !is_ring {
            continue;
        }
        if let Some(sighting) = sight(pid, fd, holder(Via::Descriptor(fd))) {
            found.insert(sighting.inode, ());
            all.push(sighting);
        }
    }
    for inode in mapped(&fs::read(format!("{process}/maps"))?) {
        if found.insert(inode, ()).is_none() {
            all.push(Sighting::new(inode, inode, holder(Via::Mapping)));
        }
    }
    Ok(all)
}

/// One descriptor. `None` if it went away meanwhile.
fn sight(pid: u32, fd: RawFd, holder: Holder) -> Option<Sighting> {
    let path = format!("/proc/{pid}/fdinfo/{fd}");
    let text = fs::read(&path).ok()?;
    let page_shift = rustix::param::page_size().trailing_zeros() as u8;
    // A ring of which only the number is known is a ring all the same.
    let (inode, ring) = match parse(&text, page_shift, &path).ok()? {
        Text::Ring(ring) => (ring.inode?, Some(ring)),
        Text::Bare { inode } => (inode?, None),
    };
    let mut sighting = Sighting::new(inode, inode, holder);
    if let Some(ring) = ring {
        describe(&mut sighting, &ring);
    }
    Some(sighting)
}

fn describe(sighting: &mut Sighting, ring: &RingText) {
    sighting.sq = Some(Queue {
        entries: ring.sq_entries,
        head: ring.sq_head,
        tail: ring.sq_tail,
    });
    sighting.cq = Some(Queue {
        entries: ring.cq_entries,
        head: ring.cq_head,
        tail: ring.cq_tail,
    });
    sighting.sqpoll = ring.sq_thread.map(|tid| SqPoll {
        // Before 6.18 the number is that of the initial pid namespace.
        tid: prints_under_lock().then_some(tid),
        cpu: ring.sq_cpu,
    });
    sighting.nr_bufs = Some(ring.nr_bufs);
    sighting.nr_files = Some(ring.nr_files);
    sighting.pinned = ring
        .bufs
        .as_deref()
        .map(|bufs| Pinned::of(bufs, list_consistency(bufs)));
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
