//! One reader for all rings: it is loaded once, and another ring costs nothing more.

use std::fs;
use std::os::fd::AsFd;
use std::process;
use std::thread;

use rustix::io::DupFlags;
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use uring_bpf_iter::{
    Backend, BufPages, EpollIter, Error, RegisteredBuf, Ring, UringBufReader, UringFileReader,
    UringReader, Via,
};
use uring_testkit::{
    loaded_programs, BufSpec, EpollSet, ProgramRuns, Registered, RingBuilder, TestRing,
};

use super::inner::expect_done;
use super::oracle::{by_inode, error_at_last, has_native, rings_of, Way};
use super::run::{again, workload};
use super::{done, Outcome};

trials![
    it_goes_from_ring_to_ring,
    nothing_is_kept_for_each_ring,
    each_ring_is_read_by_the_best_backend_for_it,
    a_ring_that_is_gone_hinders_no_other,
    a_descriptor_that_moved_is_followed,
    a_thread_that_ended_is_not_missed,
    as_little_is_looked_at_among_many_descriptors,
];

fn reader(backend: Backend) -> UringBufReader {
    UringReader::<RegisteredBuf>::options()
        .backend(backend)
        .reader()
}

/// The slots that are filled, as the kit knows them.
fn slots(bufs: &[RegisteredBuf]) -> Vec<(u64, u64, u64)> {
    let filled = bufs.iter().filter(|buf| !buf.is_empty_slot());
    filled.map(|b| (b.index(), b.addr(), b.len())).collect()
}

fn expected(table: &[Option<Registered>]) -> Vec<(u64, u64, u64)> {
    let filled = table.iter().enumerate();
    filled
        .filter_map(|(at, buf)| buf.as_ref().map(|buf| (at as u64, buf.addr, buf.len)))
        .collect()
}

#[track_caller]
fn assert_read(reader: &mut UringBufReader, ring: &Ring, table: &[Option<Registered>]) {
    let bufs = reader
        .snapshot(ring)
        .unwrap_or_else(|e| panic!("ring {}: {e}", ring.inode));
    assert_eq!(slots(&bufs), expected(table), "ring {}", ring.inode);
}

fn own(ring: &TestRing) -> Ring {
    let rings = rings_of(Backend::TaskFile, process::id());
    by_inode(&rings, ring.inode().expect("an inode")).clone()
}

fn ring_with(bufs: usize) -> Result<TestRing, Box<dyn std::error::Error + Send + Sync>> {
    let mut ring = RingBuilder::new(8).build()?;
    ring.register(&vec![BufSpec::new(77).at(5); bufs])?;
    Ok(ring)
}

/// Of other processes: by descriptor, by registered descriptor, by mapping.
fn it_goes_from_ring_to_ring() -> Outcome {
    let loads = ["", "--no-fd", "--mapping-only"]
        .map(|kind| workload(&format!("--rings 3 --bufs 6 {kind}")));
    for backend in [Backend::TaskFile, Backend::Fdinfo] {
        let mut reader = reader(backend);
        for _ in 0..2 {
            for load in &loads {
                let rings = rings_of(Backend::TaskFile, load.pid());
                assert_eq!(rings.len(), 3);
                for (at, report) in load.report().rings.iter().enumerate() {
                    let ring = match report.inode {
                        Some(inode) => by_inode(&rings, inode),
                        None => &rings[at],
                    };
                    if backend == Backend::Fdinfo && ring.owner().fd().is_none() {
                        let refused = reader.snapshot(ring).map(drop);
                        assert!(matches!(refused, Err(Error::Unsupported { .. })));
                        continue;
                    }
                    assert_read(&mut reader, ring, &report.expected());
                }
            }
        }
    }
    done()
}

/// The descriptors and the mappings of this process.
fn held() -> (usize, usize) {
    let fds = fs::read_dir("/proc/self/fd").expect("/proc").count();
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc");
    (
        fds,
        maps.lines().filter(|line| line.contains("bpf-map")).count(),
    )
}

fn nothing_is_kept_for_each_ring() -> Outcome {
    // Others here would count, too.
    expect_done(&mut again("reader"));
    done()
}

/// Runs in a process of its own.
pub(super) fn inside() {
    let rings: Vec<TestRing> = (1..=40)
        .map(|bufs| ring_with(bufs).expect("ring"))
        .collect();
    let all = rings_of(Backend::TaskFile, process::id());
    let found: Vec<Ring> = (rings.iter())
        .map(|ring| by_inode(&all, ring.inode().expect("an inode")).clone())
        .collect();
    for backend in [Backend::TaskFile, Backend::Fdinfo] {
        let mut reader = reader(backend);
        assert_read(&mut reader, &found[0], rings[0].expected());
        let (programs, after_one) = (loaded_programs().expect("programs"), held());
        for (ring, test) in found.iter().zip(&rings) {
            assert_read(&mut reader, ring, test.expected());
        }
        assert_eq!(held(), after_one, "{backend}");
        assert_eq!(loaded_programs().expect("programs"), programs, "{backend}");
    }
    let mut files = UringFileReader::options()
        .backend(Backend::TaskFile)
        .reader();
    assert_eq!(files.snapshot(&found[0]).expect("files").len(), 0);
    let after_one = held();
    for ring in &found {
        assert_eq!(files.snapshot(ring).expect("files").len(), 0);
    }
    assert_eq!(held(), after_one, "files");
}

/// A native iterator needs a descriptor: the next ring has none, the one after has.
fn each_ring_is_read_by_the_best_backend_for_it() -> Outcome {
    let best = match has_native() {
        true => Backend::Native,
        false => Backend::TaskFile,
    };
    let mut reader = UringBufReader::new();
    for (kind, backend) in [
        ("", best),
        ("--mapping-only", Backend::TaskFile),
        ("", best),
    ] {
        let load = workload(&format!("--rings 1 --bufs 3 {kind}"));
        let ring = rings_of(Backend::TaskFile, load.pid()).remove(0);
        assert_read(&mut reader, &ring, &load.report().rings[0].expected());
        assert_eq!(reader.snapshot(&ring)?.backend(), backend, "{kind}");
    }
    let refused: Vec<Backend> = reader.refused().iter().map(|r| r.backend).collect();
    match has_native() {
        true => assert_eq!(refused, []),
        false => assert_eq!(refused, [Backend::Native]),
    }
    done()
}

fn a_ring_that_is_gone_hinders_no_other() -> Outcome {
    let (one, other) = (ring_with(3)?, ring_with(4)?);
    let (gone, there) = (own(&one), own(&other));
    let load = workload("--rings 1 --bufs 2");
    let ended = rings_of(Backend::TaskFile, load.pid()).remove(0);
    for way in Way::all() {
        let mut reader = reader(way.backend());
        assert_read(&mut reader, &gone, one.expected());
        assert_read(&mut reader, &there, other.expected());
    }
    drop((one, load));
    for way in Way::all() {
        let mut reader = reader(way.backend());
        for ring in [&gone, &ended] {
            let error = error_at_last(|| reader.snapshot(ring).map(drop));
            assert!(matches!(error, Error::RingGone { .. }), "{way:?}: {error}");
            assert_read(&mut reader, &there, other.expected());
        }
    }
    done()
}

/// To another number, in the same process.
fn a_descriptor_that_moved_is_followed() -> Outcome {
    let test = ring_with(5)?;
    let mut lower = std::os::fd::OwnedFd::from(fs::File::open("/dev/null")?);
    let copy = rustix::io::fcntl_dupfd_cloexec(&test, 700)?;
    let mut ring = own(&test);
    assert_eq!(ring.holders().len(), 2, "both descriptors");
    let mut reader = reader(Backend::TaskFile);
    assert_read(&mut reader, &ring, test.expected());
    // What was known of it stays as it was: two numbers that are others' now.
    let table = test.expected().to_vec();
    rustix::io::dup3(&copy, &mut lower, DupFlags::CLOEXEC)?;
    drop((test, copy));
    assert_read(&mut reader, &ring, &table);
    let after = rings_of(Backend::TaskFile, process::id());
    ring = by_inode(&after, ring.inode).clone();
    assert!(matches!(ring.owner().via, Via::Descriptor(_)));
    assert_read(&mut reader, &ring, &table);
    drop(lower);
    // A child that another trial starts may have it for a moment.
    let error = error_at_last(|| reader.snapshot(&ring).map(drop));
    assert!(matches!(error, Error::RingGone { .. }), "{error}");
    done()
}

/// A ring is attached to by a thread, which ends; others of its process have it.
fn a_thread_that_ended_is_not_missed() -> Outcome {
    let ring = ring_with(6)?;
    let attach = || Way::TaskFile.options().attach(&ring);
    let mut iter = thread::scope(|scope| scope.spawn(attach).join()).expect("no panic")?;
    assert_eq!(slots(&iter.snapshot()?), expected(ring.expected()));
    done()
}

/// Counted by the kernel: an iterator over descriptors would run its program for each.
fn as_little_is_looked_at_among_many_descriptors() -> Outcome {
    print!("{}", expect_done(&mut again("reader-descriptors")));
    done()
}

/// Runs in a process of its own.
pub(super) fn inside_descriptors() {
    let mut test = ring_with(4).expect("ring");
    let (end, _other) = rustix::pipe::pipe().expect("pipe");
    test.register_files(&[end.as_fd()]).expect("files");
    let mut set = EpollSet::new().expect("a set");
    set.add(&end, 1, 7).expect("add");
    let ring = own(&test);
    let backend = Backend::TaskFile;
    let mut bufs = reader(backend);
    let mut files = UringFileReader::options().backend(backend).reader();
    let mut pages = BufPages::options().backend(backend).attach(&test);
    let pages = pages.as_mut().expect("attach");
    let mut items = EpollIter::options().backend(backend).attach(set.as_fd());
    let items = items.as_mut().expect("attach");
    let mut look = || {
        assert_eq!(bufs.snapshot(&ring).expect("buffers").len(), 4);
        assert_eq!(files.snapshot(&ring).expect("files").len(), 1);
        assert_eq!(pages.segments(0).expect("pages").len(), 1);
        assert_eq!(items.snapshot().expect("items").len(), 1);
    };
    look();
    let counter = ProgramRuns::count().expect("run counts");
    let mut runs = || {
        let before = counter.so_far().expect("/proc");
        look();
        counter.so_far().expect("/proc") - before
    };
    let few = runs();
    let limit = raise_descriptors();
    let mut more = Vec::new();
    let room = limit.min(19_000) as usize - 200;
    more.extend((0..room).map(|_| rustix::io::dup(&end).expect("dup")));
    let many = runs();
    println!("runs of programs: {few} with few descriptors, {many} with {room} more");
    assert!(few >= 4, "one for each table: {few}");
    assert_eq!(few, many);
}

/// As many as this process may have.
fn raise_descriptors() -> u64 {
    let usual = getrlimit(Resource::Nofile);
    let all = usual.maximum.unwrap_or(1 << 20);
    let limit = Rlimit {
        current: Some(all),
        maximum: usual.maximum,
    };
    setrlimit(Resource::Nofile, limit).expect("setrlimit");
    all
}
