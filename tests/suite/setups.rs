//! Rings of every setup: their tables, their flags, their queues.

use std::process;
use std::time::{Duration, Instant};

use uring_bpf_iter::{Backend, SetupFlags};
use uring_testkit::{BufSpec, RingBuilder};

use super::oracle::{assert_ring, by_inode, finder, threads_named};
use super::results::skip;
use super::{done, Outcome};

trials![
    sqpoll,
    iopoll,
    single_issuer,
    defer_taskrun,
    coop_taskrun,
    disabled,
    sqe128,
    cqe32,
    many_completions,
    an_sqpoll_thread_is_named,
];

fn check(builder: RingBuilder, flags: SetupFlags) -> Outcome {
    let mut ring = match builder.build() {
        Ok(ring) => ring,
        Err(e) => return skip(format!("the kernel makes no such ring: {e}")),
    };
    let pid = process::id();
    assert_ring(pid, ring.raw_fd(), &[]);
    ring.register(&[BufSpec::new(1000).at(3500), BufSpec::new(9)])
        .expect("register");
    ring.register_files_sparse(5).expect("files");
    assert_ring(pid, ring.raw_fd(), ring.expected());

    let inode = ring.inode().expect("an inode");
    for backend in [Backend::TaskFile, Backend::Fdinfo] {
        let found = finder(backend).find_fd(pid, ring.raw_fd()).expect("found");
        assert_eq!(found.inode, inode);
        if backend == Backend::TaskFile {
            let seen = found.flags.expect("flags");
            assert_eq!(seen.bits(), ring.flags(), "the kernel's own answer");
            assert!(seen.contains(flags), "{seen:?}");
        } else {
            assert_eq!(found.flags, None);
        }
        assert_eq!(found.sq.expect("SQ").entries, ring.sq_entries());
        assert_eq!(found.cq.expect("CQ").entries, ring.cq_entries());
        assert_eq!(found.nr_bufs, Some(2));
        assert_eq!(found.nr_files, Some(5));
        assert_eq!(found.sqpoll.is_some(), flags.contains(SetupFlags::SQPOLL));
    }
    done()
}

fn small() -> RingBuilder {
    RingBuilder::new(8)
}

/// The thread takes the lock now and then, until it sleeps.
fn sqpoll() -> Outcome {
    check(
        small().sqpoll(Duration::from_millis(50)),
        SetupFlags::SQPOLL,
    )
}

fn iopoll() -> Outcome {
    check(small().iopoll(), SetupFlags::IOPOLL)
}

fn single_issuer() -> Outcome {
    check(small().single_issuer(), SetupFlags::SINGLE_ISSUER)
}

fn defer_taskrun() -> Outcome {
    let flags = SetupFlags::DEFER_TASKRUN | SetupFlags::SINGLE_ISSUER;
    check(small().defer_taskrun(), flags)
}

fn coop_taskrun() -> Outcome {
    check(small().coop_taskrun(), SetupFlags::COOP_TASKRUN)
}

fn disabled() -> Outcome {
    check(small().disabled(), SetupFlags::R_DISABLED)?;
    check(small().disabled().single_issuer(), SetupFlags::R_DISABLED)
}

fn sqe128() -> Outcome {
    check(small().sqe128(), SetupFlags::SQE128)
}

fn cqe32() -> Outcome {
    check(small().cqe32(), SetupFlags::CQE32)
}

fn many_completions() -> Outcome {
    check(small().cq_entries(4096), SetupFlags::CQSIZE)
}

/// The kernel names the thread after the process that made the ring.
fn an_sqpoll_thread_is_named() -> Outcome {
    let load = super::run::workload("--rings 1 --setup sqpoll");
    let inode = load.report().rings[0].inode.expect("an inode");
    // It names itself when it first runs.
    let start = Instant::now();
    let threads = loop {
        let named = threads_named(load.pid(), &format!("iou-sqp-{}", load.pid()));
        if !named.is_empty() || start.elapsed() > Duration::from_secs(10) {
            break named;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(threads.len(), 1, "one SQPOLL thread by /proc");
    for backend in [Backend::TaskFile, Backend::Fdinfo] {
        let rings = finder(backend).find_in(load.pid())?.rings;
        let sqpoll = by_inode(&rings, inode).sqpoll.expect("SQPOLL");
        // Bound to none: one that it ran on, or none yet.
        let cpus = std::thread::available_parallelism()?.get() as u32;
        assert!(sqpoll.cpu.is_none_or(|cpu| cpu < cpus), "{sqpoll:?}");
        if backend == Backend::TaskFile || super::oracle::kernel() >= (6, 18) {
            assert_eq!(sqpoll.tid, threads.first().copied(), "{backend}");
        }
    }
    done()
}
