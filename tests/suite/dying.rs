//! Processes that end while they are looked at: a ring that dies is gone,
//! never empty, and no record is wrong.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use uring_bpf_iter::{Backend, Error, RegisteredBuf, UringBufIter};
use uring_testkit::{Registered, RingReport};

use super::oracle::{by_inode, finder, pinned_bytes, Way};
use super::run::workload;
use super::{done, Outcome};

trials![
    snapshots_while_processes_die,
    searches_while_processes_die,
    a_ring_that_is_handed_on,
];

const STRESS: Duration = Duration::from_secs(8);
/// A slow machine has until then to show both a whole process and a gone one.
const LONGEST: Duration = Duration::from_secs(60);
const LOAD: &str = "--rings 4 --bufs 200 --len 5000 --offset 100 --tag 70000";

/// Runs `look` once, if it shall be `ready`, and then again and again until the
/// process is killed, after `delay`; and once more.
fn while_it_dies(ready: bool, delay: Duration, mut look: impl FnMut(u32, &[RingReport])) {
    let load = workload(LOAD);
    let (pid, rings) = (load.pid(), load.report().rings.clone());
    if ready {
        look(pid, &rings);
    }
    let killer = thread::spawn(move || {
        thread::sleep(delay);
        drop(load);
    });
    while !killer.is_finished() {
        look(pid, &rings);
    }
    killer.join().expect("no panic");
    look(pid, &rings);
}

fn is_whole(way: Way, bufs: &[RegisteredBuf], expected: &[Option<Registered>]) -> bool {
    bufs.len() == expected.len()
        && bufs.iter().zip(expected).all(|(buf, want)| {
            want.is_some_and(|want| {
                let tag = (way != Way::Fdinfo).then_some(want.tag);
                (buf.addr(), buf.len(), buf.tag()) == (want.addr, want.len, tag)
            })
        })
}

fn snapshots_while_processes_die() -> Outcome {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let start = Instant::now();
    let mut round = 0;
    while start.elapsed() < STRESS {
        round += 1;
        for way in Way::all() {
            let mut iters: Vec<Option<UringBufIter>> = Vec::new();
            let delay = Duration::from_millis(round * 7 % 120);
            while_it_dies(round % 3 != 0, delay, |pid, rings| {
                iters.resize_with(rings.len(), || None);
                for (slot, report) in iters.iter_mut().zip(rings) {
                    let mut count = |what: &str| {
                        *counts.entry(format!("{way:?} {what}")).or_default() += 1;
                    };
                    let fd = report.fd.expect("a descriptor");
                    let iter = match slot {
                        Some(iter) => iter,
                        None => match way.options().attach_pid(pid, fd) {
                            Ok(iter) => slot.insert(iter),
                            Err(
                                Error::NoSuchProcess { .. }
                                | Error::NoSuchDescriptor { .. }
                                | Error::RingGone { .. },
                            ) => {
                                count("not attached");
                                continue;
                            }
                            Err(other) => panic!("{way:?}: {other:?}"),
                        },
                    };
                    match way.snapshot(iter) {
                        Ok(bufs) => {
                            let whole = is_whole(way, &bufs, &report.expected());
                            assert!(whole, "{way:?}: wrong records: {bufs:?}");
                            count("whole");
                        }
                        Err(Error::RingGone { ring, .. }) => {
                            assert_eq!(Some(ring), report.inode);
                            count("gone");
                        }
                        Err(Error::Contended { .. }) => count("contended"),
                        Err(other) => panic!("{way:?}: {other:?}"),
                    }
                }
            });
        }
    }
    println!("dying: {round} rounds of snapshots: {counts:?}");
    for way in Way::all() {
        for what in ["whole", "gone"] {
            assert!(
                counts.contains_key(&format!("{way:?} {what}")),
                "{counts:?}"
            );
        }
    }
    done()
}

fn searches_while_processes_die() -> Outcome {
    let mut finders = [Backend::TaskFile, Backend::Fdinfo].map(|b| (b, finder(b)));
    let (mut full, mut partial, mut none) = (0u64, 0u64, 0u64);
    let start = Instant::now();
    let mut round = 0;
    let both = |full: u64, none: u64| full > 0 && none > 0;
    while start.elapsed() < STRESS || (start.elapsed() < LONGEST && !both(full, none)) {
        round += 1;
        for (backend, finder) in &mut finders {
            // A slow machine takes longer to end a process.
            let span = if start.elapsed() < STRESS { 60 } else { 2000 };
            let delay = Duration::from_millis(round * 3 % span);
            while_it_dies(round % 2 == 0, delay, |pid, reports| {
                let rings = match finder.find_in(pid) {
                    Ok(survey) => survey.rings,
                    Err(Error::NoSuchProcess { pid: gone }) if gone == pid => Vec::new(),
                    Err(other) => panic!("{backend}: {other:?}"),
                };
                for ring in &rings {
                    let report = reports.iter().find(|r| r.inode == Some(ring.inode));
                    let report = report.expect("a ring of that process");
                    let sum = pinned_bytes(&report.expected());
                    assert!(ring.pinned.is_none_or(|p| p.bytes == sum), "{ring:?}");
                    // Also if it was found by what was left: its mapping.
                    assert!(ring.nr_bufs.is_none_or(|nr| nr == 200), "{ring:?}");
                    let _once = by_inode(&rings, ring.inode);
                }
                match rings.len() {
                    0 => none += 1,
                    n if n == reports.len() => full += 1,
                    n if n < reports.len() => partial += 1,
                    n => panic!("{n} rings"),
                }
            });
        }
    }
    println!("dying: {round} rounds of searches: {full} full, {partial} partial, {none} none");
    assert!(both(full, none), "{full} full, {none} none");
    done()
}

/// Some process has it at every moment, and none for long; and it is too busy for a sum,
/// so that the search looks again.
fn a_ring_that_is_handed_on() -> Outcome {
    let load = workload("--hand-on --sparse 16384");
    let inode = load.report().rings[0].inode.expect("a descriptor");
    let mut finder = finder(Backend::TaskFile);
    let (mut searches, mut busy, start) = (0u64, 0, Instant::now());
    while searches < 5 || start.elapsed() < STRESS / 2 {
        let rings = finder.find_all()?.rings;
        let ring = rings.iter().find(|ring| ring.inode == inode);
        let ring = ring.unwrap_or_else(|| panic!("not seen after {searches} searches"));
        busy += u64::from(ring.pinned.is_none());
        searches += 1;
    }
    println!("handed on: seen by {searches} searches, by {busy} as too busy for a sum");
    done()
}
