//! What a snapshot costs in instructions, in a machine whose clock counts them
//! (`cargo xtask vm --icount`): the same each time, whatever else the host does.

use std::fs::File;
use std::hint::black_box;
use std::io::Read as _;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use rustix::process::{setrlimit, Resource, Rlimit};
use uring_bpf_iter::{Backend, UringBufIter};
use uring_testkit::{page_size, BufSpec, RingBuilder, TestRing};

const BUFFERS: usize = 16_384;
const ROUNDS: usize = 5;

/// Descriptors beside that of the ring, and of how many buffers a snapshot is then.
const DESCRIPTORS: usize = 19_000;
const FEW_BUFFERS: usize = 4;
/// Of a process that shares its descriptors.
const THREADS: usize = 64;
/// Instructions at most to see that a descriptor is another file's.
const GONE: f64 = 300.0;
/// So much more may a snapshot cost among so many descriptors.
const MORE: f64 = 4.0 / 3.0;

/// Instructions a record at most: twice what they were when this was written, on
/// 6.12, of which 180 are what a debug build adds.
const NATIVE: f64 = 2.0 * 416.0;
const VERIFIED: f64 = 2.0 * 659.0;

/// Panics if a snapshot has become much dearer.
pub(super) fn inside() {
    let mut ring = RingBuilder::new(8).build().expect("ring");
    ring.register(&vec![BufSpec::new(page_size()); BUFFERS])
        .expect("register");
    let native = snapshots(&ring, Backend::Native);
    let verified = snapshots(&ring, Backend::TaskFile);
    let text = texts(&ring);
    println!("{BUFFERS} registered buffers, instructions a record:");
    println!("{native:>8.0} native");
    println!("{verified:>8.0} task-file, verified");
    println!("{text:>8.0} fdinfo, read and not parsed");
    println!("fdinfo takes {:.1} times those of native", text / native);
    assert!(native <= NATIVE, "native: {native:.0}, {NATIVE} at most");
    assert!(
        verified <= VERIFIED,
        "task-file: {verified:.0}, {VERIFIED} at most"
    );
    many_descriptors();
}

/// Panics if a snapshot of few buffers costs more in a process with many descriptors.
fn many_descriptors() {
    let mut ring = RingBuilder::new(8).build().expect("ring");
    ring.register(&[BufSpec::new(page_size()); FEW_BUFFERS])
        .expect("register");
    let options = UringBufIter::options().backend(Backend::TaskFile);
    let mut iter = options.attach(&ring).expect("attach");
    let mut snapshot = || {
        count(|| {
            assert_eq!(iter.snapshot().expect("snapshot").len(), FEW_BUFFERS);
        })
    };
    let few = snapshot();
    let most = 2 * DESCRIPTORS as u64;
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(Resource::Nofile, limit).expect("setrlimit");
    let copies: Vec<_> = (0..DESCRIPTORS)
        .map(|_| rustix::io::dup(&ring).expect("dup"))
        .collect();
    let many = snapshot();
    println!("{FEW_BUFFERS} registered buffers, instructions a snapshot:");
    println!("{few:>8.0} with few descriptors");
    println!("{many:>8.0} with {} more", copies.len());
    assert!(many <= MORE * few, "{many:.0}, {few:.0} with few");

    // Where it was it is no longer: each descriptor is looked at, once.
    let gone = || {
        let ring = RingBuilder::new(8).build().expect("ring");
        let options = UringBufIter::options().backend(Backend::TaskFile);
        options.attach(&ring).expect("attach")
    };
    let look = |mut iter: UringBufIter| {
        count(|| {
            iter.snapshot().expect_err("it is gone");
        })
    };
    let alone = look(gone());
    let (end, threads) = (Barrier::new(THREADS + 1), 0..THREADS);
    let among_threads = thread::scope(|scope| {
        threads.for_each(|_| drop(scope.spawn(|| end.wait())));
        let cost = look(gone());
        end.wait();
        cost
    });
    println!("a ring that is gone, instructions a descriptor:");
    println!("{:>8.0}", alone / DESCRIPTORS as f64);
    println!(
        "{:>8.0} with {THREADS} threads",
        among_threads / DESCRIPTORS as f64
    );
    assert!(alone <= GONE * DESCRIPTORS as f64, "{alone:.0}");
    assert!(among_threads <= MORE * alone, "{among_threads:.0}");

    // Met by a search once, it is known where it is.
    let mut moving = RingBuilder::new(8).build().expect("ring");
    moving
        .register(&[BufSpec::new(page_size()); FEW_BUFFERS])
        .expect("register");
    let options = UringBufIter::options().backend(Backend::TaskFile);
    let mut iter = options.attach(&moving).expect("attach");
    let _elsewhere = rustix::io::fcntl_dupfd_cloexec(&moving, 3).expect("dup");
    drop(moving);
    let moved = count(|| {
        assert_eq!(iter.snapshot().expect("snapshot").len(), FEW_BUFFERS);
    });
    println!("{moved:>8.0} a snapshot of a ring whose descriptor has moved");
    assert!(moved <= 2.0 * few, "{moved:.0}, {few:.0} at its place");
}

fn snapshots(ring: &TestRing, backend: Backend) -> f64 {
    let options = UringBufIter::options().backend(backend);
    let mut iter = options.attach(ring).expect("attach");
    let whole = count(|| {
        assert_eq!(iter.snapshot().expect("snapshot").len(), BUFFERS);
    });
    whole / BUFFERS as f64
}

/// What cannot be done without by a reader of fdinfo.
fn texts(ring: &TestRing) -> f64 {
    let path = format!("/proc/self/fdinfo/{}", ring.raw_fd());
    let mut text = Vec::with_capacity(4 << 20);
    let whole = count(|| {
        text.clear();
        let mut file = File::open(&path).expect("fdinfo");
        file.read_to_end(&mut text).expect("fdinfo");
        assert!(black_box(&text).len() > 16 * BUFFERS);
    });
    whole / BUFFERS as f64
}

/// The least of some rounds, after one that does not count: a timer's interrupt in
/// between is no part of it.
fn count(mut work: impl FnMut()) -> f64 {
    work();
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed()
    });
    // A nanosecond an instruction.
    rounds.min().expect("rounds").as_nanos() as f64
}
