//! What a snapshot costs once everything is warm, counted and not timed: memory
//! that Rust allocates, and calls of the kernel.

use std::hint::black_box;
use std::os::fd::AsFd;

use allocation_counter::measure;
use rustix::event::{eventfd, EventfdFlags};
use uring_bpf_iter::{Backend, BufPages, EpollIter, UringBufIter, UringFileIter};
use uring_testkit::{page_size, BufSpec, EpollSet, RingBuilder};

use super::inner::expect_done;
use super::oracle::{has_native, kernel, no_locked_reads, LOCKED};
use super::{done, run, Outcome};

trials![nothing_is_allocated_and_few_calls_are_made];

/// Of each table.
const ITEMS: usize = 1000;
const SNAPSHOTS: usize = 5;
/// The call that stands before and after what is counted.
const MARK: &str = "getppid(";

/// Calls at most. (In a debug build Rust asks whether what it closes is open.)
fn most(name: &str) -> usize {
    match name.split(',').next() {
        // A program is called, on kernels from 6.10 on ...
        Some("buffers" | "files" | "items") if is_called(name) => 1,
        // ... after the question whether page frame numbers may still be shown.
        Some("pages") if is_called(name) => 5,
        // Or an iterator is begun, read to its end and closed.
        Some("buffers" | "files" | "items") => 4,
        Some("pages") => 8,
        // A look at the owner of the lock, and a ring that is handed over.
        Some("locked buffers") => 20,
        _ => panic!("no kind of snapshot: {name}"),
    }
}

/// By task-file, where the kernel lets a system call run such a program.
fn is_called(name: &str) -> bool {
    name.ends_with("task-file") && kernel() >= (6, 10)
}

/// In a process of its own, whose calls strace lists.
fn nothing_is_allocated_and_few_calls_are_made() -> Outcome {
    let list = std::env::temp_dir().join(format!("uring-warm-{}", std::process::id()));
    let me = run::again("warm");
    let mut strace = std::process::Command::new("strace");
    strace.args(["-qq", "-o"]).arg(&list).arg(me.get_program());
    for (name, value) in me.get_envs() {
        strace.env(name, value.expect("none is removed"));
    }
    let said = expect_done(&mut strace);
    let calls = std::fs::read_to_string(&list)?;
    std::fs::remove_file(&list)?;
    let names: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    // The time is no call where the vDSO knows it: not in every emulated machine.
    let counts = |line: &&str| !line.starts_with("clock_gettime(");
    let parts: Vec<Vec<&str>> = (calls.split(MARK))
        .map(|part| part.lines().skip(1).filter(counts).collect())
        .collect();
    assert_eq!(parts.len(), 2 * SNAPSHOTS * names.len() + 1, "{calls}");
    // What comes before the first mark is not counted, and of the rest every other
    // part is what lies between two snapshots.
    for (name, parts) in names.iter().zip(parts[1..].chunks(2 * SNAPSHOTS)) {
        for part in parts.iter().step_by(2) {
            assert!(part.len() <= most(name), "{name}: {part:#?}");
            let has = |call: &str| part.iter().any(|line| line.starts_with(call));
            // The name that the command had first.
            let asked = has("read(") || has("bpf(BPF_PROG_TEST_RUN");
            assert!(asked, "{name}: nothing was read: {part:#?}");
            for once in ["bpf(BPF_PROG_LOAD", "bpf(BPF_LINK_CREATE"] {
                assert!(!has(once), "{name}: {once} again: {part:#?}");
            }
        }
        println!("warm: {name}: {} calls", parts[0].len());
    }
    done()
}

/// Five snapshots of each kind by each backend, with a line for each kind.
pub(super) fn inside() {
    let control = measure(|| drop(black_box(Box::new(1))));
    assert_eq!(control.count_total, 1, "the allocator counts");
    let bufs = vec![BufSpec::new(page_size()); ITEMS];
    let mut ring = RingBuilder::new(8).build().expect("ring");
    ring.register(&bufs).expect("register buffers");
    let event = eventfd(0, EventfdFlags::CLOEXEC).expect("eventfd");
    ring.register_files(&vec![event.as_fd(); ITEMS])
        .expect("register files");
    let mut set = EpollSet::new().expect("epoll");
    for data in 0..ITEMS as u64 {
        let event = eventfd(0, EventfdFlags::CLOEXEC).expect("eventfd");
        set.keep(event, 1, data).expect("add");
    }
    let backends = match has_native() {
        true => vec![Backend::TaskFile, Backend::Native],
        false => vec![Backend::TaskFile],
    };
    for backend in backends {
        let mut iter = UringBufIter::options()
            .backend(backend)
            .attach(&ring)
            .expect("attach");
        count(&format!("buffers, {backend}"), 0, || {
            iter.snapshot().expect("snapshot").len()
        });
        if backend == Backend::TaskFile && no_locked_reads().is_none() {
            count("locked buffers, task-file", 0, || {
                iter.snapshot_locked(LOCKED).expect("locked").len()
            });
        }
        let mut pages = BufPages::options()
            .backend(backend)
            .attach(&ring)
            .expect("attach");
        count(&format!("pages, {backend}"), 0, || {
            ITEMS - 1 + pages.segments(3).expect("pages").len()
        });
        let mut iter = UringFileIter::options()
            .backend(backend)
            .attach(&ring)
            .expect("attach");
        count(&format!("files, {backend}"), 0, || {
            iter.snapshot().expect("snapshot").len()
        });
        let mut iter = EpollIter::options()
            .backend(backend)
            .attach(set.as_fd())
            .expect("attach");
        count(&format!("items, {backend}"), 0, || {
            iter.snapshot().expect("snapshot").len()
        });
    }
}

/// `allocations`: at most so many a snapshot.
fn count(name: &str, allocations: u64, mut snapshot: impl FnMut() -> usize) {
    // The second one has the room that the first one found missing.
    for _ in 0..2 {
        assert_eq!(snapshot(), ITEMS, "{name}");
    }
    println!("{name}");
    for _ in 0..SNAPSHOTS {
        mark();
        let allocated = measure(|| {
            black_box(snapshot());
        });
        mark();
        assert!(
            allocated.count_total <= allocations,
            "{name}: {allocated:?}"
        );
    }
}

fn mark() {
    black_box(rustix::process::getppid());
}
