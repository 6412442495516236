//! Every way to name a ring, and one iterator for ring after ring.

use std::process;
use std::time::{Duration, Instant};

use rustix::process::{pidfd_open, PidfdFlags};
use uring_bpf_iter::{Backend, Error, Ring, RingFinder, UringBufIter, Via};
use uring_testkit::{loaded_programs, BufSpec, Registered, RingBuilder};

use super::inner::expect_done;
use super::oracle::{
    assert_reads, attach as attach_pid, by_inode, has_native, kernel, rings_of, Way,
};
use super::run::{again, workload};
use super::{done, Outcome};

trials![
    a_descriptor_of_ones_own,
    a_pid_of_ones_own,
    a_child_process,
    a_found_ring,
    reattach_goes_from_kind_to_kind,
    fdinfo_reattaches_and_keeps_its_ring_on_failure,
    a_ring_registered_by_another_thread,
    a_thread_with_descriptors_of_its_own,
    a_thread_that_its_own_ring_calls,
    iterators_do_not_disturb_each_other,
    no_descriptor_is_kept,
];

fn a_descriptor_of_ones_own() -> Outcome {
    let mut ring = RingBuilder::new(8).build()?;
    ring.register_tagged(&[BufSpec::new(77).at(5).tagged(9)])?;
    for way in Way::all() {
        let mut iter = way.options().attach(&ring)?;
        assert_reads(way, &mut iter, ring.expected());
        // Also by a duplicate that is closed before the read.
        let mut iter = {
            let dup = std::os::fd::AsFd::as_fd(&ring).try_clone_to_owned()?;
            let iter = way.options().attach(&dup)?;
            assert_eq!(iter.selection().backend, way.backend());
            iter
        };
        if way == Way::TaskFile {
            assert_reads(way, &mut iter, ring.expected());
        }
    }
    done()
}

fn a_thread_with_descriptors_of_its_own() -> Outcome {
    expect_done(&mut again("thread-descriptors"));
    done()
}

/// Its ring has a number that is another file's in the rest of the process: one without
/// other trials, whose descriptors would have a second holder meanwhile.
pub(crate) fn inside_thread_descriptors() {
    let file = std::fs::File::open("/dev/null").expect("open");
    let mut file = std::os::fd::OwnedFd::from(file);
    let of_thread = || {
        uring_testkit::unshare_descriptors().expect("unshare");
        let mut ring = RingBuilder::new(8).build().expect("ring");
        ring.register(&[BufSpec::new(77).at(5); 3])
            .expect("register");
        rustix::io::dup2(&ring, &mut file).expect("dup2");
        // fdinfo looks at /proc/PID, which is that of the leader.
        for way in Way::all().filter(|way| *way != Way::Fdinfo) {
            // It attaches by a copy of the descriptor.
            if way == Way::Native && !has_thread_pidfds() {
                let refused = way.options().attach(&file).expect_err("out of reach");
                let reason = std::error::Error::source(&refused).map(ToString::to_string);
                let text = format!("{refused}: {reason:?}");
                assert!(text.contains("Linux 6.9"), "{text}");
                continue;
            }
            let mut iter = way.options().attach(&file).expect("attach");
            assert_reads(way, &mut iter, ring.expected());
        }
    };
    std::thread::scope(|scope| scope.spawn(of_thread).join()).expect("no panic");
}

/// Completions call for the thread that has submitted the requests, as signals do, and
/// then the verifier gives up (EAGAIN).
fn a_thread_that_its_own_ring_calls() -> Outcome {
    let mut ring = RingBuilder::new(8).cq_entries(32_768).build()?;
    ring.register_tagged(&[BufSpec::new(77).at(5).tagged(9)])?;
    for way in Way::all() {
        ring.timeouts(10_000, Duration::from_micros(100))?;
        let mut iter = way.options().attach(&ring)?;
        assert_eq!(iter.selection().backend, way.backend());
        assert_reads(way, &mut iter, ring.expected());
        ring.drain();
    }
    // The search takes longest to load. When it was called away late, libbpf had a log
    // that was cut off, and took that for the kernel's verdict (ENOSPC).
    ring.timeouts(400, Duration::from_millis(3))?;
    let _finder = RingFinder::with_backend(Backend::TaskFile)?;
    let programs = loaded_programs()?;
    // One of each form that the other has not, as far as the kernel keeps names.
    for (program, wanted) in [
        ("find_rings_file", kernel() < (6, 9)),
        ("find_rings", kernel() >= (6, 9)),
    ] {
        let is_there = programs.iter().any(|name| name == program);
        assert_eq!(is_there, wanted, "{program}: {programs:?}");
    }
    done()
}

/// PIDFD_THREAD, 6.9. O_EXCL by another name.
fn has_thread_pidfds() -> bool {
    let flags = PidfdFlags::from_bits_retain(rustix::fs::OFlags::EXCL.bits());
    pidfd_open(rustix::thread::gettid(), flags).is_ok()
}

fn a_pid_of_ones_own() -> Outcome {
    let mut ring = RingBuilder::new(8).build()?;
    ring.register(&[BufSpec::new(77).at(5); 3])?;
    for way in Way::all() {
        let mut iter = attach_pid(way, process::id(), ring.raw_fd());
        assert_reads(way, &mut iter, ring.expected());
    }
    let auto = UringBufIter::attach_pid(process::id(), ring.raw_fd())?;
    let refused: Vec<Backend> = auto.selection().refused.iter().map(|r| r.backend).collect();
    let selected = (auto.selection().backend, &refused[..]);
    let expected: (Backend, &[Backend]) = match has_native() {
        true => (Backend::Native, &[]),
        false => (Backend::TaskFile, &[Backend::Native]),
    };
    assert_eq!(selected, expected);
    done()
}

fn a_child_process() -> Outcome {
    let load = workload("--rings 5 --bufs 9 --len 700 --offset 3900 --tag 5");
    for ring in &load.report().rings {
        for way in Way::all() {
            let mut iter = attach_pid(way, load.pid(), ring.fd.expect("a descriptor"));
            assert_reads(way, &mut iter, &ring.expected());
        }
    }
    done()
}

fn a_found_ring() -> Outcome {
    let load = workload("--rings 3 --bufs 4 --tag 100");
    for way in Way::all() {
        // A native iterator is attached to a ring, and finds none.
        let finder = match way {
            Way::Native => Backend::TaskFile,
            way => way.backend(),
        };
        let rings = rings_of(finder, load.pid());
        for report in &load.report().rings {
            let ring = by_inode(&rings, report.inode.expect("an inode"));
            let mut iter = way.options().attach_ring(ring)?;
            assert_reads(way, &mut iter, &report.expected());
        }
    }
    done()
}

/// Descriptor, registered descriptor, mapping, each with tables of its own.
fn reattach_goes_from_kind_to_kind() -> Outcome {
    let loads = [
        workload("--rings 2 --bufs 3 --tag 10"),
        workload("--rings 2 --bufs 5 --tag 20 --no-fd"),
        workload("--rings 2 --bufs 2 --tag 30 --mapping-only"),
        workload("--rings 1 --bufs 700 --tag 40"),
    ];
    let mut rings: Vec<(Ring, Vec<Option<Registered>>)> = Vec::new();
    for load in &loads {
        let found = rings_of(Backend::TaskFile, load.pid());
        assert_eq!(found.len(), load.report().rings.len());
        for report in &load.report().rings {
            let ring = found.iter().find(|ring| match report.registered_index {
                Some(index) => ring.owner().via == Via::Registered(index),
                None => Some(ring.inode) == report.inode,
            });
            rings.push((ring.expect("found").clone(), report.expected()));
        }
    }
    // Each kind after each other kind, and after itself.
    // Not by a native iterator, which takes a descriptor.
    let mut iter = Way::TaskFile.options().attach_ring(&rings[0].0)?;
    for from in 0..rings.len() {
        for to in 0..rings.len() {
            for (ring, expected) in [&rings[from], &rings[to]] {
                iter.reattach(ring)?;
                assert_reads(Way::TaskFile, &mut iter, expected);
            }
        }
    }
    // Without a descriptor there is nothing to take the lock by.
    let (no_fd, expected) = &rings[2];
    assert_eq!(no_fd.owner().fd(), None);
    iter.reattach(no_fd)?;
    let locked = iter.snapshot_locked(Duration::from_secs(1));
    assert!(
        matches!(locked, Err(Error::Unsupported { .. })),
        "{locked:?}"
    );
    assert_reads(Way::TaskFile, &mut iter, expected);
    done()
}

fn fdinfo_reattaches_and_keeps_its_ring_on_failure() -> Outcome {
    let (one, two) = (
        workload("--rings 1 --bufs 3"),
        workload("--rings 1 --bufs 8"),
    );
    let mapped = workload("--rings 1 --mapping-only");
    let find = |pid| rings_of(Backend::Fdinfo, pid).remove(0);
    let way = Way::Fdinfo;

    let mut iter = way.options().attach_ring(&find(one.pid()))?;
    assert_reads(way, &mut iter, &one.report().rings[0].expected());
    iter.reattach(&find(two.pid()))?;
    assert_reads(way, &mut iter, &two.report().rings[0].expected());

    let no_fd = find(mapped.pid());
    assert_eq!(no_fd.owner().via, Via::Mapping);
    let refused = iter
        .reattach(&no_fd)
        .expect_err("fdinfo needs a descriptor");
    assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
    assert_reads(way, &mut iter, &two.report().rings[0].expected());
    done()
}

/// Registered descriptors belong to one thread.
fn a_ring_registered_by_another_thread() -> Outcome {
    // A trial runs in a thread of its own, unless --test-threads=1.
    std::thread::spawn(|| -> Result<(), String> {
        let mut ring = RingBuilder::new(8).build().map_err(|e| e.to_string())?;
        ring.register_tagged(&[BufSpec::new(10).at(1).tagged(0xFEED_F00D); 6])
            .and_then(|()| ring.close_fd_keep_registered())
            .map_err(|e| e.to_string())?;
        let index = ring.registered_index().expect("an index");
        let me = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        assert_ne!(me, process::id());

        let found = rings_of(Backend::TaskFile, process::id());
        let mut mine = found.iter().filter(|ring| {
            let holders = &mut ring.holders().iter();
            holders.any(|h| h.tid == me && h.via == Via::Registered(index))
        });
        let found = mine.next().expect("the ring of this thread");
        assert!(mine.next().is_none());
        assert_eq!(found.owner().pid, process::id());
        let mut iter = UringBufIter::attach_ring(found).map_err(|e| e.to_string())?;
        assert_reads(Way::TaskFile, &mut iter, ring.expected());
        Ok(())
    })
    .join()
    .expect("no panic")?;
    done()
}

fn iterators_do_not_disturb_each_other() -> Outcome {
    let load = workload("--rings 8 --bufs 50 --tag 1000");
    std::thread::scope(|scope| {
        for report in &load.report().rings {
            let pid = load.pid();
            scope.spawn(move || {
                let way = Way::TaskFile;
                let mut iter = attach_pid(way, pid, report.fd.expect("a descriptor"));
                for _ in 0..200 {
                    assert_reads(way, &mut iter, &report.expected());
                }
            });
        }
    });
    done()
}

/// An iterator must never be what keeps a ring alive.
fn no_descriptor_is_kept() -> Outcome {
    let load = workload("--rings 1");
    let inode = load.report().rings[0].inode.expect("an inode");
    let fd = load.report().rings[0].fd.expect("a descriptor");
    let mut iters = Vec::new();
    for way in Way::all() {
        let mut iter = attach_pid(way, load.pid(), fd);
        assert_eq!(way.snapshot(&mut iter)?.len(), 1);
        iters.push((way, iter));
    }
    drop(load);
    // The children that other trials fork hold copies, for a moment.
    let start = Instant::now();
    let mut finder = RingFinder::new()?;
    while finder.find_all()?.rings.iter().any(|r| r.inode == inode) {
        assert!(start.elapsed() < Duration::from_secs(10), "still held");
    }
    for (way, mut iter) in iters {
        let error = way.snapshot(&mut iter).map(drop).expect_err("gone");
        assert!(
            matches!(error, Error::RingGone { ring, .. } if ring == inode),
            "{way:?}: {error}"
        );
        assert!(!error.is_retryable());
    }
    done()
}
