//! uring_lock is taken, or the table is on its way out: the iterator says so,
//! keeps its place, and never shows what is not true.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use uring_bpf_iter::{Contention, Error, Link, RegisteredBuf, Retry, UringBufIter};
use uring_testkit::{BufSpec, Flap, Flapper, Request, RingBuilder, View};

use super::contention::{assert_owner, forget, hold, refused};
use super::native::{errno, program, read, read_all, ring, ring_of, RING_TARGETS, SOON};
use super::oracle::Way;
use super::results::skip;
use super::{done, Outcome};

native_trials![Any:
    a_held_lock_is_edeadlk_and_the_place_is_kept,
    the_library_retries_within_its_bounds,
    a_table_that_flaps,
    a_table_that_is_being_unregistered,
];

fn a_held_lock_is_edeadlk_and_the_place_is_kept() -> Outcome {
    let mut ring = ring_of(20);
    ring.register_files_sparse(20)?;
    for target in RING_TARGETS {
        let link = program(target).attach(&ring)?;
        let mut sessions = [0, 8, 15].map(|nr| {
            let mut session = link.open().expect("session");
            for _ in 0..nr {
                read(&mut session, &mut [0; 8]);
            }
            (nr, session)
        });
        let held = match hold(&ring) {
            Ok(held) => held,
            Err(reason) => return skip(reason),
        };
        for (_, session) in &mut sessions {
            for _ in 0..100 {
                let refused = session.read(&mut [0; 4096]);
                assert_eq!(errno(refused), libc::EDEADLK);
            }
        }
        // Neither attach nor iter_create takes the lock.
        program(target).attach(&ring)?.open()?;
        held.release()?;
        for (nr, session) in &mut sessions {
            assert_eq!(read_all(session, 8), (*nr..=20).collect::<Vec<u64>>());
        }
    }
    done()
}

fn the_library_retries_within_its_bounds() -> Outcome {
    let ring = ring_of(10);
    let mut iter = Way::Native.options().attach(&ring)?;
    let link = Link::<RegisteredBuf>::attach(&ring)?;
    let mut records = link.records()?;
    let held = match hold(&ring) {
        Ok(held) => held,
        Err(reason) => return skip(reason),
    };
    let limit = Retry::default().deadline;
    // The walk of a stock kernel tells who it is, and is loaded for that once.
    let first = forget(iter.snapshot()).unwrap_err();
    assert!(first.is_retryable(), "{first:?}");
    let why = refused(limit, || forget(iter.snapshot()));
    assert_owner(&why, std::process::id());
    let why = refused(limit, || records.next_batch().map(drop));
    assert_eq!(why, Contention::LockHeldUnseen);
    let short = Retry {
        attempts: u32::MAX,
        deadline: Duration::from_millis(300),
        ..Retry::default()
    };
    let mut short = Way::Native.options().retry(short).attach(&ring)?;
    match forget(short.snapshot()) {
        // It waits between them: a tight loop would try many thousand times.
        Err(Error::Contended { attempts, .. }) => {
            assert!((2..3000).contains(&attempts), "{attempts}")
        }
        other => panic!("{other:?}"),
    }
    held.release()?;
    assert_eq!(iter.snapshot()?.len(), 10);
    let batch = records.next_batch()?.expect("records");
    assert_eq!(batch[0].index(), 0, "nothing was lost");
    done()
}

/// Every snapshot that is given is one state, whole.
fn a_table_that_flaps() -> Outcome {
    const SLOTS: usize = 16;
    for how in [Flap::Update, Flap::Reregister] {
        let ring = RingBuilder::new(8).cq_entries(4 * SLOTS as u32).build()?;
        let flapper = Flapper::start(ring, SLOTS, how)?;
        flapper.rest(Duration::from_millis(5));
        let retry = Retry {
            attempts: u32::MAX,
            deadline: SOON,
            ..Retry::default()
        };
        let mut iter: UringBufIter = Way::Native.options().retry(retry).attach(&flapper)?;
        let link = program("io_uring_buf").attach(&flapper)?;
        let (mut views, mut attempts) = (HashMap::new(), 0);
        let start = Instant::now();
        while start.elapsed() < SOON {
            let bufs = iter.snapshot()?;
            attempts += bufs.attempts();
            let tags = bufs.iter().map(|buf| buf.tag().expect("native knows tags"));
            *views.entry(flapper.states().view_tags(tags)).or_insert(0) += 1;
            // A session in several reads: each index once, in order.
            let seen = read_all(&mut link.open()?, 64);
            let (end, indices) = seen.split_last().expect("at least the end");
            assert_eq!(indices, (0..indices.len() as u64).collect::<Vec<_>>());
            assert!([0, SLOTS as u64].contains(end), "{seen:?}");
            let both = |n| [View::A, View::B].iter().all(|v| views.get(v) > Some(&n));
            if both(3) {
                break;
            }
        }
        println!(
            "{how:?}: {views:?} in {attempts} attempts, {} flips",
            flapper.flips()
        );
        assert!(
            views.get(&View::A) > Some(&0) && views.get(&View::B) > Some(&0),
            "{views:?}"
        );
        assert_eq!(views.get(&View::Torn), None, "{how:?}: {views:?}");
        assert!(how == Flap::Reregister || !views.contains_key(&View::Empty));
        flapper.stop()?;
    }
    done()
}

/// A request in flight uses a buffer. Up to 6.12 unregistering waits for it with
/// the lock dropped and the table's size at 0, and may give up: "no buffers"
/// would not be true. Later kernels let the request keep its buffer, and the
/// table is gone at once, before the call that did it has returned.
fn a_table_that_is_being_unregistered() -> Outcome {
    let mut ring = ring();
    ring.register(&[BufSpec::new(4096); 10])?;
    let (ours, mut theirs) = UnixStream::pair()?;
    let ours = OwnedFd::from(ours);
    let addr = ring.expected()[0].expect("filled").addr;
    let pending = ring.submit(Request::read_fixed(&ours, 0, addr, 16))?;
    let link = program("io_uring_buf").attach(&ring)?;
    let waiting = super::oracle::kernel() < (6, 13);
    let full: Vec<u64> = (0..=10).collect();
    let right = |seen: &[u64]| seen == full || (!waiting && seen == [0]);
    let look = || -> Result<Vec<u64>, i32> {
        let read = link.open().expect("session").read_all(4096);
        read.map_err(|e| e.raw_os_error().expect("an errno"))
    };
    let (mut waits, mut wrong) = (0, None);
    thread::scope(|scope| {
        let unregister = scope.spawn(|| ring.unregister());
        let start = Instant::now();
        // No assertion in here: it would wait for the other thread, which waits for us.
        while waits < 20 && wrong.is_none() && !unregister.is_finished() && start.elapsed() < SOON {
            match look() {
                Err(libc::EDEADLK) => waits += 1,
                Ok(seen) if right(&seen) => {}
                seen => wrong = Some(seen),
            }
            thread::sleep(Duration::from_millis(1));
        }
        theirs.write_all(b"x").expect("write");
        unregister.join().expect("no panic").expect("unregister");
    });
    assert_eq!(wrong, None, "it is not empty yet");
    assert!(waits >= 20 || !waiting, "it did not wait");
    assert_eq!(ring.wait(pending, SOON)?.res, 1);
    assert_eq!(read_all(&mut link.open()?, 4096), [0], "now it is");
    done()
}
