//! One hold of uring_lock that outlasts the kernel's patience with hung tasks.

use std::collections::BTreeMap;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use uring_bpf_iter::{Contention, Retry};

use super::contention::{assert_owner, forget, hold, refused, ring};
use super::oracle::{assert_reads, attach, children_of, no_locked_reads, status, Way};
use super::results::skip;
use super::{done, Outcome};

trials![two_minutes_of_one_hold];

/// Children of this process that stay in state D from one look to the next.
#[derive(Default)]
struct Stuck {
    looks: BTreeMap<u32, u32>,
}

impl Stuck {
    fn look(&mut self) {
        let now: Vec<u32> = children_of(process::id())
            .into_iter()
            .filter(|pid| status(*pid, "State").starts_with('D'))
            .collect();
        self.looks.retain(|pid, _| now.contains(pid));
        for pid in now {
            // Other trials' observers wait for a lock too, but not for long.
            let looks = self.looks.entry(pid).or_default();
            *looks += 1;
            assert!(*looks < 5, "child {pid} is stuck in state D");
        }
    }
}

/// Longer than the kernel's hung task timeout of two minutes.
fn two_minutes_of_one_hold() -> Outcome {
    const HOLD: Duration = Duration::from_secs(125);
    const LIMIT: Duration = Duration::from_millis(500);
    let ring = ring();
    let (pid, fd) = (process::id(), ring.raw_fd());
    let mut iter = attach(Way::TaskFile, pid, fd);
    let mut text = attach(Way::Fdinfo, pid, fd);
    let locked = no_locked_reads().is_none();
    let held = match hold(&ring) {
        Ok(held) => held,
        Err(reason) => return skip(reason),
    };
    let start = Instant::now();
    let (mut looks, mut stuck) = (0, Stuck::default());
    while start.elapsed() < HOLD {
        if locked {
            let why = refused(LIMIT, || forget(iter.snapshot_locked(LIMIT)));
            assert_owner(&why, pid);
        } else {
            thread::sleep(LIMIT);
        }
        if looks % 8 == 0 {
            let why = refused(Retry::default().deadline, || forget(iter.snapshot()));
            assert_owner(&why, pid);
            let why = refused(LIMIT, || forget(text.snapshot_locked(LIMIT)));
            assert_eq!(why, Contention::LockHeldUnseen);
            assert_eq!(iter.snapshot_raw()?.len(), 10);
        }
        stuck.look();
        looks += 1;
    }
    println!(
        "contention: {looks} looks in {:.1?} of one hold",
        start.elapsed()
    );
    held.release()?;
    for way in Way::all() {
        let mut iter = attach(way, pid, fd);
        assert_reads(way, &mut iter, ring.expected());
    }
    assert_reads(Way::TaskFile, &mut iter, ring.expected());
    if locked {
        assert_reads(Way::Locked, &mut iter, ring.expected());
    }
    assert_reads(Way::Fdinfo, &mut text, ring.expected());
    stuck.look();
    done()
}
