//! A ring whose uring_lock somebody keeps: nothing hangs, and the owner is
//! named.

use std::io;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use uring_bpf_iter::{Consistency, Contention, Error, LockOwner, Retry, Snapshot, UringBufIter};
use uring_testkit::{BufSpec, LockHolder, RingBuilder, TestRing};

use super::oracle::{assert_reads, attach, by_inode, finder, ranges, threads_named, Way};
use super::results::skip;
use super::run::workload;
use super::{done, Outcome};

trials![
    the_owner_is_named,
    raw_looks_all_the_same,
    retries_keep_their_bounds,
    a_search_does_not_wait,
    a_release_is_noticed,
    a_holder_can_be_killed,
];

/// What a busy machine may add to a limit.
const SLACK: Duration = Duration::from_secs(10);

pub(super) fn ring() -> TestRing {
    let mut ring = RingBuilder::new(8).build().expect("ring");
    let spec = |i| BufSpec::new(100 + i).at(i).tagged(i as u64);
    let specs: Vec<BufSpec> = (0..10).map(spec).collect();
    ring.register_tagged(&specs).expect("register");
    ring
}

/// The lock of a ring, or why this machine cannot keep it.
pub(super) fn hold(ring: &TestRing) -> Result<LockHolder, String> {
    LockHolder::hold(ring).map_err(|e| match e.kind() {
        io::ErrorKind::Unsupported => format!("no userfaultfd: {e}"),
        _ => panic!("hold: {e}"),
    })
}

/// The error of a read that must be refused for the lock, in time.
#[track_caller]
pub(super) fn refused(limit: Duration, read: impl FnOnce() -> Result<(), Error>) -> Contention {
    let start = Instant::now();
    let result = read();
    let took = start.elapsed();
    let error = result.expect_err("the lock is held");
    assert!(error.is_retryable(), "{error:?}");
    assert!(took < limit + SLACK, "{limit:?} became {took:?}: {error}");
    match error {
        Error::Contended { why, attempts, .. } => {
            assert!(attempts >= 1);
            why
        }
        other => panic!("{other:?}"),
    }
}

pub(super) fn forget(snapshot: Result<Snapshot<'_>, Error>) -> Result<(), Error> {
    snapshot.map(drop)
}

#[track_caller]
pub(super) fn assert_owner(why: &Contention, pid: u32) {
    let Contention::LockHeld(LockOwner {
        pid: Some(owner),
        tid: Some(tid),
        name,
        sleeps,
        ..
    }) = why
    else {
        panic!("{why:?}");
    };
    assert_eq!(*owner, pid, "{why:?}");
    assert_eq!(name, "lock-holder", "{why:?}");
    assert!(threads_named(pid, "lock-holder").contains(tid), "{why:?}");
    assert!(*sleeps, "{why:?}");
}

fn the_owner_is_named() -> Outcome {
    let load = workload("--rings 1 --bufs 3 --hold-lock");
    let fd = load.report().rings[0].fd.expect("a descriptor");
    let limit = Duration::from_millis(300);
    for way in Way::all() {
        let mut iter = attach(way, load.pid(), fd);
        let why = match way {
            Way::Locked => refused(limit, || forget(iter.snapshot_locked(limit))),
            _ => refused(Retry::default().deadline, || forget(iter.snapshot())),
        };
        match way {
            Way::Fdinfo => assert_eq!(why, Contention::LockHeldUnseen),
            _ => assert_owner(&why, load.pid()),
        }
    }
    let mut iter = attach(Way::TaskFile, load.pid(), fd);
    let text = iter.snapshot().map(drop).unwrap_err().to_string();
    assert!(text.contains(&format!("process {}", load.pid())), "{text}");
    assert!(text.contains("which sleeps"), "{text}");
    done()
}

fn raw_looks_all_the_same() -> Outcome {
    let ring = ring();
    let held = match hold(&ring) {
        Ok(held) => held,
        Err(reason) => return skip(reason),
    };
    let mut iter = attach(Way::TaskFile, process::id(), ring.raw_fd());
    let bufs = iter.snapshot_raw()?;
    assert_eq!(bufs.consistency(), Consistency::Raw);
    let seen: Vec<_> = bufs
        .iter()
        .map(|buf| Some((buf.addr(), buf.len())))
        .collect();
    assert_eq!(seen, ranges(ring.expected()));
    let tags: Vec<_> = bufs.iter().map(|buf| buf.tag()).collect();
    assert_eq!(tags, (0..10).map(Some).collect::<Vec<_>>());

    // The kernel prints no list without the lock.
    let mut text = attach(Way::Fdinfo, process::id(), ring.raw_fd());
    let why = refused(Retry::default().deadline, || forget(text.snapshot_raw()));
    assert_eq!(why, Contention::LockHeldUnseen);
    held.release()?;
    assert_eq!(iter.snapshot_raw()?.consistency(), Consistency::Raw);
    done()
}

fn retries_keep_their_bounds() -> Outcome {
    let ring = ring();
    let _held = match hold(&ring) {
        Ok(held) => held,
        Err(reason) => return skip(reason),
    };
    let by = |retry: Retry, way: Way| -> (u32, Duration) {
        let mut iter = way.options().retry(retry).attach(&ring).expect("attach");
        let start = Instant::now();
        match forget(iter.snapshot()) {
            Err(Error::Contended {
                attempts, elapsed, ..
            }) => {
                assert!(elapsed <= start.elapsed());
                (attempts, start.elapsed())
            }
            other => panic!("{other:?}"),
        }
    };
    for way in [Way::TaskFile, Way::Fdinfo] {
        let (attempts, took) = by(Retry::once(), way);
        assert_eq!(attempts, 1);
        assert!(took < SLACK, "{took:?}");
        let three = Retry {
            attempts: 3,
            deadline: Duration::from_secs(60),
            ..Retry::default()
        };
        assert_eq!(by(three, way).0, 3);
        let short = Retry {
            attempts: u32::MAX,
            deadline: Duration::from_millis(300),
            ..Retry::default()
        };
        let (attempts, took) = by(short, way);
        assert!(attempts > 3, "{attempts}");
        assert!(
            took > Duration::from_millis(200),
            "it gave up after {took:?}"
        );
        assert!(took < short.deadline + SLACK, "{took:?}");
    }
    done()
}

/// It finds the ring, without a sum of its buffers.
fn a_search_does_not_wait() -> Outcome {
    let load = workload("--rings 2 --bufs 3 --hold-lock");
    for backend in [Way::TaskFile.backend(), Way::Fdinfo.backend()] {
        let mut finder = finder(backend);
        let start = Instant::now();
        let rings = finder.find_in(load.pid())?.rings;
        assert!(start.elapsed() < SLACK, "{:?}", start.elapsed());
        for report in &load.report().rings {
            let ring = by_inode(&rings, report.inode.expect("an inode"));
            assert_eq!(ring.owner().fd(), report.fd);
            assert_eq!(ring.pinned, None, "no sum of what could not be verified");
        }
    }
    done()
}

fn a_release_is_noticed() -> Outcome {
    for way in Way::all() {
        let ring = ring();
        let held = match hold(&ring) {
            Ok(held) => held,
            Err(reason) => return skip(reason),
        };
        let retry = Retry {
            attempts: u32::MAX,
            deadline: Duration::from_secs(20),
            ..Retry::default()
        };
        let options = way.options().retry(retry);
        let mut iter: UringBufIter = options.attach(&ring)?;
        thread::scope(|scope| {
            let reader = scope.spawn(|| match way {
                Way::Locked => forget(iter.snapshot_locked(Duration::from_secs(20))),
                _ => forget(iter.snapshot()),
            });
            thread::sleep(Duration::from_millis(400));
            assert!(!reader.is_finished(), "{way:?}: the lock is held");
            held.release().expect("release");
            reader.join().expect("no panic").expect("released");
        });
        assert_reads(way, &mut iter, ring.expected());
    }
    done()
}

/// Also while somebody waits for it; the ring goes with it, at once.
fn a_holder_can_be_killed() -> Outcome {
    for way in Way::all() {
        let load = workload("--rings 1 --bufs 3 --hold-lock");
        let report = load.report().rings[0].clone();
        let retry = Retry {
            attempts: u32::MAX,
            deadline: Duration::from_secs(20),
            ..Retry::default()
        };
        let options = way.options().retry(retry);
        let mut iter = options.attach_pid(load.pid(), report.fd.expect("a descriptor"))?;
        let start = Instant::now();
        let ended = thread::scope(|scope| {
            let reader = scope.spawn(|| match way {
                Way::Locked => forget(iter.snapshot_locked(Duration::from_secs(20))),
                _ => forget(iter.snapshot()),
            });
            thread::sleep(Duration::from_millis(300));
            drop(load);
            reader.join().expect("no panic")
        });
        // It lets go of the lock a little earlier than of the ring.
        let ended = ended.and_then(|()| forget(way.snapshot(&mut iter)));
        let error = ended.expect_err("there is no ring to read");
        assert!(
            matches!(error, Error::RingGone { .. }),
            "{way:?}: {error:?}"
        );
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{:?}",
            start.elapsed()
        );
    }
    done()
}
