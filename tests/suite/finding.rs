//! Rings of many processes: each found once, and described right.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use uring_bpf_iter::{Backend, Charged, Holder, Ring, RingFinder, Via};
use uring_testkit::{page_size, BufSpec, RingBuilder, Workload};

use super::inner::expect_done;
use super::native::SOON;
use super::oracle::{by_inode, finder, kernel, pinned_bytes, rings_of, vm_pin_bytes, Way};
use super::run::{again, idle_process, spawn, workload, Killed, NOBODY};
use super::{done, Outcome};

trials![
    many_rings_in_many_processes,
    one_process_and_one_descriptor,
    the_only_ring_is_a_threads_own,
    descriptors_that_are_swapped,
    a_table_of_descriptors_that_grows,
    a_descriptor_with_a_great_number,
    more_rings_than_the_first_room,
    more_buffers_than_one_call_adds_up,
    no_ring_at_all,
    root_is_exempt,
    another_user_is_charged,
    a_user_who_dropped_rights_later,
    both_backends_agree,
];

const BACKENDS: [Backend; 2] = [Backend::TaskFile, Backend::Fdinfo];

/// A ring against the report of the process that made it.
#[track_caller]
fn assert_ring(ring: &Ring, load: &Workload, at: usize, backend: Backend) {
    let report = &load.report().rings[at];
    let context = format!("{backend}: {ring:?}\n{report:?}");
    let [holder] = ring.holders() else {
        panic!("one holder is right: {context}");
    };
    assert_eq!(holder.pid, load.pid(), "{context}");
    assert_eq!(holder.tid, load.pid(), "{context}");
    assert_eq!(holder.fd(), report.fd, "{context}");
    assert_eq!(holder.uid, 0, "{context}");
    assert_eq!(holder.name, "workload", "{context}");
    assert_eq!(Some(ring.inode), report.inode, "{context}");
    assert_eq!(
        ring.sq.map(|q| q.entries),
        Some(report.sq_entries),
        "{context}"
    );
    assert_eq!(
        ring.cq.map(|q| q.entries),
        Some(report.cq_entries),
        "{context}"
    );
    assert_eq!(ring.sq.map(|q| q.pending()), Some(0), "{context}");
    assert_eq!(ring.nr_bufs, Some(report.bufs.len() as u32), "{context}");
    assert_eq!(ring.nr_files, Some(report.nr_files as u32), "{context}");
    let pinned = ring.pinned.expect("nobody changes it");
    let way = match backend {
        Backend::TaskFile => Way::TaskFile,
        _ => Way::Fdinfo,
    };
    let expected = report.expected();
    let label = way.consistency(expected.len());
    assert_eq!(pinned.consistency, label, "{context}");
    assert_eq!(
        pinned.buffers as usize,
        expected.iter().flatten().count(),
        "{context}"
    );
    assert_eq!(pinned.bytes, pinned_bytes(&expected), "{context}");
    if backend == Backend::TaskFile {
        assert_eq!(
            ring.flags.map(|f| f.bits()),
            Some(report.flags),
            "{context}"
        );
        assert_eq!(ring.creator_uid, Some(0), "{context}");
        if kernel() < (6, 19) {
            assert_eq!(pinned.accounted, Some(pinned.bytes), "{context}");
        }
    } else {
        assert_eq!(ring.flags, None, "{context}");
        assert_eq!(ring.charged, None, "{context}");
        // Nothing is accounted for no buffer; else it is not known.
        assert_eq!(
            pinned.accounted,
            (pinned.buffers == 0).then_some(0),
            "{context}"
        );
    }
}

fn many_rings_in_many_processes() -> Outcome {
    let loads: Vec<Workload> = (0..8)
        .map(|i| {
            let setup = ["plain", "defer-taskrun", "disabled", "cqe32"][i % 4];
            workload(&format!(
                "--rings 25 --setup {setup} --bufs {i} --len {} --offset {} --files {i}",
                1 + 1500 * i,
                9 * i
            ))
        })
        .collect();
    for backend in BACKENDS {
        let mut finder = finder(backend);
        let survey = finder.find_all()?;
        for load in &loads {
            for (at, report) in load.report().rings.iter().enumerate() {
                let ring = by_inode(&survey.rings, report.inode.expect("an inode"));
                assert_ring(ring, load, at, backend);
            }
            // Nothing that the process does not have.
            let held = survey
                .rings
                .iter()
                .filter(|r| r.holder(load.pid(), None).is_some());
            assert_eq!(held.count(), 25, "{backend}");
        }
        let inodes: BTreeSet<u64> = survey.rings.iter().map(|ring| ring.inode).collect();
        assert_eq!(inodes.len(), survey.rings.len(), "each ring once");
        assert!(survey.rings.is_sorted_by_key(|ring| ring.owner().pid));
    }
    done()
}

fn one_process_and_one_descriptor() -> Outcome {
    let load = workload("--rings 4 --bufs 2 --len 10000 --files 3");
    for backend in BACKENDS {
        let mut finder = finder(backend);
        let survey = finder.find_in(load.pid())?;
        assert_eq!(survey.rings.len(), 4);
        assert_eq!(survey.unseen, []);
        for (at, report) in load.report().rings.iter().enumerate() {
            let fd = report.fd.expect("a descriptor");
            assert_ring(
                by_inode(&survey.rings, report.inode.unwrap()),
                &load,
                at,
                backend,
            );
            assert_ring(&finder.find_fd(load.pid(), fd)?, &load, at, backend);
        }
    }
    done()
}

/// The search begins with room for 1,024 sightings.
fn more_rings_than_the_first_room() -> Outcome {
    const RINGS: usize = 1500;
    let load = workload(&format!("--rings {RINGS} --bufs 1"));
    let made: BTreeMap<u64, usize> = load
        .report()
        .rings
        .iter()
        .enumerate()
        .map(|(at, ring)| (ring.inode.expect("an inode"), at))
        .collect();
    assert_eq!(made.len(), RINGS);
    for backend in BACKENDS {
        let mut finder = finder(backend);
        // The second search has the room from the start.
        for _ in 0..2 {
            let rings = finder.find_in(load.pid())?.rings;
            assert_eq!(rings.len(), RINGS, "{backend}");
            for ring in &rings {
                let at = made.get(&ring.inode).expect("a ring that was made");
                assert_ring(ring, &load, *at, backend);
            }
        }
    }
    done()
}

/// The kernel is let go in between, and comes back for the rest.
fn more_buffers_than_one_call_adds_up() -> Outcome {
    const BUFS: usize = 16_384;
    let mut rings = Vec::new();
    for _ in 0..6 {
        let mut ring = RingBuilder::new(8).build()?;
        ring.register(&vec![BufSpec::new(page_size()); BUFS])?;
        rings.push(ring);
    }
    let me = std::process::id();
    for mappings in [true, false] {
        let mut finder = finder(Backend::TaskFile).mappings(mappings);
        let start = Instant::now();
        let mut summed = 0;
        // Others read the text of all rings, for which the kernel takes their locks.
        while summed < rings.len() {
            assert!(start.elapsed() < SOON, "{summed} have a sum");
            let found = finder.find_in(me)?;
            summed = 0;
            for ring in &rings {
                let inode = rustix::fs::fstat(ring)?.st_ino;
                let seen = by_inode(&found.rings, inode);
                assert!(seen.holder(me, Some(ring.raw_fd())).is_some(), "{seen:?}");
                let Some(pinned) = seen.pinned else { continue };
                assert_eq!(seen.nr_bufs, Some(BUFS as u32), "{seen:?}");
                assert_eq!(pinned.bytes, (BUFS * page_size()) as u64, "{seen:?}");
                summed += 1;
            }
        }
    }
    done()
}

fn no_ring_at_all() -> Outcome {
    let idle = idle_process();
    for backend in BACKENDS {
        let survey = finder(backend).find_in(idle.0.id())?;
        assert_eq!((survey.rings, survey.unseen), (vec![], vec![]));
    }
    done()
}

fn root_is_exempt() -> Outcome {
    let load = workload("--rings 1 --bufs 10");
    let ring = rings_of(Backend::TaskFile, load.pid()).remove(0);
    assert_eq!(ring.charged, Some(Charged::Exempt));
    assert_eq!(ring.pinned.expect("quiet").bytes, 10 * page_size() as u64);
    done()
}

fn another_user_is_charged() -> Outcome {
    let load = workload(&format!("--rings 2 --bufs 30 --len 8192 --uid {NOBODY}"));
    let rings = rings_of(Backend::TaskFile, load.pid());
    assert_eq!(rings.len(), 2);
    let both = 2 * 30 * 8192;
    for ring in &rings {
        assert_eq!(ring.creator_uid, Some(NOBODY));
        assert_eq!(ring.owner().uid, NOBODY);
        let pinned = ring.pinned.expect("quiet");
        assert_eq!(pinned.bytes, 30 * 8192);
        let Some(Charged::User { uid, locked_bytes }) = ring.charged else {
            panic!("{ring:?}");
        };
        assert_eq!(uid, NOBODY);
        // All rings of the user, in other processes too.
        assert!(locked_bytes >= both, "{locked_bytes}");
        assert!(vm_pin_bytes(load.pid()) >= both);
    }
    done()
}

fn a_user_who_dropped_rights_later() -> Outcome {
    let load = workload(&format!(
        "--rings 1 --bufs 3 --uid {NOBODY} --uid-when after"
    ));
    for backend in BACKENDS {
        let ring = rings_of(backend, load.pid()).remove(0);
        if backend == Backend::TaskFile {
            assert_eq!(ring.creator_uid, Some(0), "root made it");
            assert_eq!(ring.charged, Some(Charged::Exempt));
            assert_eq!(ring.owner().uid, NOBODY);
        }
        assert_eq!(
            ring.owner().via,
            Via::Descriptor(load.report().rings[0].fd.unwrap())
        );
    }
    done()
}

/// On the demo's rings, which differ in every way.
fn both_backends_agree() -> Outcome {
    let load = workload("--preset demo");
    let [ours, theirs] = BACKENDS.map(|backend| rings_of(backend, load.pid()));
    assert_eq!(ours.len(), load.report().rings.len());
    assert_eq!(theirs.len(), ours.len());
    let auto = RingFinder::new()?;
    assert_eq!(auto.selection().backend, Backend::TaskFile);
    for ring in &ours {
        let other = by_inode(&theirs, ring.inode);
        let vias = |ring: &Ring| {
            ring.holders()
                .iter()
                .map(|h| (h.pid, h.via))
                .collect::<Vec<_>>()
        };
        assert_eq!(vias(ring), vias(other));
        assert_eq!((ring.sq, ring.cq), (other.sq, other.cq));
        assert_eq!(
            (ring.nr_bufs, ring.nr_files),
            (other.nr_bufs, other.nr_files)
        );
        let bytes = |ring: &Ring| ring.pinned.map(|p| (p.buffers, p.bytes));
        assert_eq!(bytes(ring), bytes(other));
        assert!(bytes(ring).is_some());
    }
    done()
}

fn the_only_ring_is_a_threads_own() -> Outcome {
    expect_done(&mut again("ring-of-a-thread"));
    done()
}

/// A thread left the descriptors of its process: the process has no ring but there.
pub(crate) fn inside_ring_of_a_thread() {
    let me = std::process::id();
    let mut finder = finder(Backend::TaskFile);
    assert!(finder.find_in(me).expect("a search").rings.is_empty());
    let of_thread = move || {
        uring_testkit::unshare_descriptors().expect("unshare");
        let ring = RingBuilder::new(8).build().expect("ring");
        let fd = Some(ring.as_fd().try_clone_to_owned().expect("dup"));
        // The mapping goes, by which all threads hold the ring.
        drop(ring);
        let rings = finder.find_in(me).expect("a search").rings;
        assert_eq!(rings.len(), 1, "{rings:?}");
        let tid = rustix::thread::gettid().as_raw_pid() as u32;
        let fd = fd.as_ref().map(AsRawFd::as_raw_fd);
        let holders = rings[0].holders();
        let is_it = |holder: &Holder| (holder.pid, holder.tid, holder.fd()) == (me, tid, fd);
        assert!(holders.iter().any(is_it), "{tid}, {fd:?}: {holders:?}");
    };
    let thread = std::thread::spawn(of_thread);
    thread.join().expect("no panic");
}

fn descriptors_that_are_swapped() -> Outcome {
    print!("{}", expect_done(&mut again("swapped-descriptors")));
    done()
}

/// The table of the first thread is another one each moment, often where one was just
/// before, and has both rings in it all the while.
pub(crate) fn inside_swapped_descriptors() {
    let rings = [0, 1].map(|_| RingBuilder::new(8).build().expect("ring"));
    // Those of one ring take time, in which the table is swapped.
    let dup = |_| rings[0].as_fd().try_clone_to_owned().expect("dup");
    let dups: Vec<OwnedFd> = (0..20).map(dup).collect();
    let last = rustix::io::fcntl_dupfd_cloexec(&rings[1], 100).expect("dup");
    let me = std::process::id();
    let all = [rings[0].raw_fd(), rings[1].raw_fd(), last.as_raw_fd()];
    let wanted: BTreeSet<i32> = dups.iter().map(AsRawFd::as_raw_fd).chain(all).collect();
    let searches = std::thread::spawn(move || {
        let mut finder = finder(Backend::TaskFile).mappings(false);
        let (start, mut searches) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(5) {
            let rings = finder.find_in(me).expect("a search").rings;
            assert_eq!(rings.len(), 2, "search {searches}: {rings:?}");
            let holders = rings.iter().flat_map(Ring::holders);
            let of_first = holders.filter(|holder| holder.tid == me);
            let mut fds: Vec<i32> = of_first.filter_map(Holder::fd).collect();
            fds.sort_unstable();
            assert!(fds.iter().eq(&wanted), "search {searches}: {fds:?}");
            for ring in &rings {
                assert_eq!(ring.nr_bufs, Some(0), "search {searches}: {ring:?}");
            }
            searches += 1;
        }
        searches
    });
    let mut swaps = 0;
    while !searches.is_finished() {
        // Who shares the table goes on with that of before.
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || ended.recv());
        uring_testkit::unshare_descriptors().expect("unshare");
        drop(end);
        let _ = other.join().expect("no panic");
        swaps += 1;
    }
    let searches = searches.join().expect("no panic");
    println!("{searches} searches while descriptors were swapped {swaps} times");
}

/// A ring goes from one number to a higher one, for which the table has to grow.
fn a_table_of_descriptors_that_grows() -> Outcome {
    let mut finder = finder(Backend::TaskFile).mappings(false);
    let (start, mut rounds, mut searches) = (Instant::now(), 0, 0);
    while rounds < 3 || (rounds < 30 && start.elapsed() < Duration::from_secs(10)) {
        let mut command = again("growing-descriptors");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = Killed(spawn(&mut command)?);
        let mut said = BufReader::new(child.0.stdout.take().expect("piped"));
        let mut line = String::new();
        said.read_line(&mut line)?;
        let inode: u64 = line.trim().parse()?;
        let mut input = child.0.stdin.take().expect("piped");
        writeln!(input, "{}", rounds * 131 % 5000)?;
        let moved = std::thread::spawn(move || said.read_line(&mut String::new()));
        while !moved.is_finished() {
            let rings = finder.find_in(child.0.id())?.rings;
            let there = rings.iter().any(|ring| ring.inode == inode);
            assert!(there, "round {rounds}, search {searches}: {rings:?}");
            searches += 1;
        }
        moved.join().expect("no panic")?;
        rounds += 1;
    }
    println!("{searches} searches while {rounds} tables grew");
    done()
}

/// The process with the table: has it grow when so many microseconds have passed.
pub(crate) fn inside_growing_descriptors() {
    let limit = Rlimit {
        current: Some(20_000),
        maximum: Some(20_000),
    };
    setrlimit(Resource::Nofile, limit).expect("setrlimit");
    let others = std::fs::File::open("/dev/null").expect("open");
    let _others: Vec<_> = (0..15_500).map(|_| others.try_clone()).collect();
    let ring = RingBuilder::new(8).build().expect("ring");
    let fd = rustix::io::fcntl_dupfd_cloexec(&ring, 16_000).expect("dup");
    let inode = rustix::fs::fstat(&fd).expect("fstat").st_ino;
    drop(ring);
    println!("{inode}");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("stdin");
    std::thread::sleep(Duration::from_micros(
        line.trim().parse().expect("a number"),
    ));
    let _there = rustix::io::fcntl_dupfd_cloexec(&fd, 16_400).expect("dup");
    drop(fd);
    println!("moved");
    std::io::stdin().read_line(&mut line).expect("stdin");
}

fn a_descriptor_with_a_great_number() -> Outcome {
    print!("{}", expect_done(&mut again("great-descriptor")));
    done()
}

/// As great as the machine lets it be.
pub(crate) fn inside_great_descriptor() {
    let usual = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: Some(1 << 20),
        maximum: Some(1 << 20),
    };
    let most = setrlimit(Resource::Nofile, most).map_or(usual.maximum, |()| most.maximum);
    let most = most.unwrap_or(1 << 20);
    let current = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(Resource::Nofile, current).expect("setrlimit");
    let ring = RingBuilder::new(8).build().expect("ring");
    let least = i32::try_from(most).expect("a descriptor") - 1;
    let great = rustix::io::fcntl_dupfd_cloexec(&ring, least).expect("dup");
    let me = std::process::id();
    for backend in BACKENDS {
        let found = finder(backend).find_fd(me, least).expect("found");
        let fds: BTreeSet<_> = found.holders().iter().filter_map(Holder::fd).collect();
        let both = BTreeSet::from([ring.raw_fd(), great.as_raw_fd()]);
        assert_eq!(fds, both, "{backend}");
    }
    println!("descriptor {least} was found");
}
