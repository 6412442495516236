//! Who holds a ring, in every way, and who is left when a holder goes.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process;
use std::time::{Duration, Instant};

use rustix::process::{pidfd_getfd, pidfd_open, Pid, PidfdFlags, PidfdGetfdFlags};
use uring_bpf_iter::{Backend, Error, Ring, Via};
use uring_testkit::{RingBuilder, Workload};

use super::oracle::{assert_reads, by_inode, finder, no_locked_reads, rings_of, Way};
use super::run::workload;
use super::{done, Outcome};

trials![
    a_forked_holder,
    a_duplicate,
    a_thousand_duplicates,
    a_registered_descriptor,
    a_mapping_alone,
    a_search_that_leaves_out_mappings,
    a_ring_that_closes_between_find_and_attach,
    task_file_goes_on_to_the_next_holder,
    locked_goes_on_to_the_next_holder,
    fdinfo_goes_on_to_the_next_holder,
];

const BACKENDS: [Backend; 2] = [Backend::TaskFile, Backend::Fdinfo];

fn vias(ring: &Ring) -> Vec<(u32, Via)> {
    ring.holders().iter().map(|h| (h.pid, h.via)).collect()
}

fn a_forked_holder() -> Outcome {
    let load = workload("--rings 3 --fork --bufs 2");
    let [child] = load.report().children[..] else {
        panic!("one child");
    };
    for backend in BACKENDS {
        // From each of the two, with both.
        for pid in [load.pid(), child] {
            let rings = rings_of(backend, pid);
            assert_eq!(rings.len(), 3);
            for report in &load.report().rings {
                let ring = by_inode(&rings, report.inode.unwrap());
                let via = Via::Descriptor(report.fd.unwrap());
                let mut both = vec![(load.pid(), via), (child, via)];
                both.sort();
                assert_eq!(vias(ring), both, "{backend}");
                let mut iter = Way::TaskFile.options().attach_ring(ring)?;
                assert_reads(Way::TaskFile, &mut iter, &report.expected());
            }
        }
    }
    done()
}

fn a_duplicate() -> Outcome {
    let load = workload("--rings 2 --dup");
    for backend in BACKENDS {
        let mut finder = finder(backend);
        for report in &load.report().rings {
            let fds = [report.fd.unwrap(), report.dup_fds[0]];
            for fd in fds {
                let ring = finder.find_fd(load.pid(), fd)?;
                assert_eq!(Some(ring.inode), report.inode);
                let mut both = fds.map(|fd| (load.pid(), Via::Descriptor(fd)));
                both.sort();
                assert_eq!(vias(&ring), both, "{backend}");
            }
        }
    }
    done()
}

/// More than the room that a search begins with, by one ring.
fn a_thousand_duplicates() -> Outcome {
    let ring = RingBuilder::new(8).build()?;
    let dup = |_| ring.as_fd().try_clone_to_owned();
    let dups = (0..1100).map(dup).collect::<Result<Vec<OwnedFd>, _>>()?;
    let mut made: BTreeSet<i32> = dups.iter().map(AsRawFd::as_raw_fd).collect();
    made.insert(ring.raw_fd());
    for backend in BACKENDS {
        let found = finder(backend).find_fd(process::id(), ring.raw_fd())?;
        let seen: Vec<i32> = found
            .holders()
            .iter()
            .filter(|holder| holder.pid == process::id())
            .filter_map(|holder| holder.fd())
            .collect();
        assert_eq!(seen.len(), made.len(), "{backend}: each once");
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), made, "{backend}");
    }
    done()
}

fn a_registered_descriptor() -> Outcome {
    let load = workload("--rings 3 --no-fd --bufs 4 --tag 77");
    let rings = rings_of(Backend::TaskFile, load.pid());
    assert_eq!(rings.len(), 3);
    for report in &load.report().rings {
        let via = Via::Registered(report.registered_index.expect("an index"));
        let ring = rings.iter().find(|ring| ring.owner().via == via);
        let ring = ring.expect("found by its index");
        assert_eq!(vias(ring), [(load.pid(), via)]);
        assert_eq!(ring.owner().tid, load.pid());
        assert_eq!(ring.flags.unwrap().bits(), report.flags);
        assert_eq!(ring.nr_bufs, Some(4));
        let mut iter = Way::TaskFile.options().attach_ring(ring)?;
        assert_reads(Way::TaskFile, &mut iter, &report.expected());
    }
    // As documented: /proc does not show them.
    assert_eq!(rings_of(Backend::Fdinfo, load.pid()), []);
    done()
}

fn a_mapping_alone() -> Outcome {
    let load = workload("--rings 3 --mapping-only --bufs 4 --tag 77");
    for backend in BACKENDS {
        let rings = rings_of(backend, load.pid());
        assert_eq!(rings.len(), 3);
        for report in &load.report().rings {
            let ring = by_inode(&rings, report.inode.unwrap());
            assert_eq!(vias(ring), [(load.pid(), Via::Mapping)]);
            if backend == Backend::TaskFile {
                assert_eq!(ring.flags.unwrap().bits(), report.flags);
                let mut iter = Way::TaskFile.options().attach_ring(ring)?;
                assert_reads(Way::TaskFile, &mut iter, &report.expected());
            }
        }
    }
    done()
}

/// What is held in another way is found with all that is said of it.
fn a_search_that_leaves_out_mappings() -> Outcome {
    let held = ["", "--no-fd", "--mapping-only"];
    let loads = held.map(|how| workload(&format!("--rings 2 --bufs 3 {how}")));
    // No sums: others may have the lock of a ring just then.
    let said = |ring: &Ring| (ring.inode, vias(ring), ring.flags, ring.nr_bufs, ring.sq);
    for backend in BACKENDS {
        let everything = finder(backend).find_all()?.rings;
        let mut finder = finder(backend).mappings(false);
        let survey = finder.find_all()?;
        let no_mapping = |ring: &Ring| {
            ring.holders()
                .iter()
                .all(|holder| holder.via != Via::Mapping)
        };
        assert!(survey.rings.iter().all(no_mapping), "{backend}");
        for (load, how) in loads.iter().zip(held) {
            let of_all = |ring: &&Ring| ring.holder(load.pid(), None).is_some();
            let of_load = |rings: &[Ring]| rings.iter().filter(of_all).map(said).collect();
            let usual: Vec<_> = of_load(&everything);
            let found: Vec<_> = of_load(&survey.rings);
            let alone: Vec<_> = of_load(&finder.find_in(load.pid())?.rings);
            assert_eq!(found, alone, "{backend}, {how}");
            match (how, backend) {
                // As documented: no descriptor of either kind, or none that /proc shows.
                ("--mapping-only", _) | ("--no-fd", Backend::Fdinfo) => {
                    assert!(found.is_empty(), "{backend}, {how}: {found:?}");
                }
                _ => {
                    assert_eq!(found.len(), 2, "{backend}, {how}");
                    assert_eq!(found, usual, "{backend}, {how}");
                }
            }
        }
    }
    done()
}

fn a_ring_that_closes_between_find_and_attach() -> Outcome {
    for args in ["--rings 1", "--rings 1 --no-fd", "--rings 1 --mapping-only"] {
        for way in Way::all() {
            if way != Way::TaskFile && args != "--rings 1" {
                continue;
            }
            let load = workload(args);
            let ring = rings_of(Backend::TaskFile, load.pid()).remove(0);
            drop(load);
            // It may be seen at once, or at the first look.
            let attached = way.options().attach_ring(&ring);
            let error = match attached {
                Ok(mut iter) => way.snapshot(&mut iter).map(drop).expect_err("gone"),
                Err(error) => error,
            };
            assert!(
                matches!(error, Error::RingGone { ring: inode, .. } if inode == ring.inode),
                "{args}, {way:?}: {error:?}"
            );
        }
    }
    done()
}

/// A second holder: this process, by a copy of the descriptor.
fn adopt(load: &Workload) -> OwnedFd {
    let pid = Pid::from_raw(load.pid() as i32).expect("a pid");
    let process = pidfd_open(pid, PidfdFlags::empty()).expect("pidfd_open");
    let fd = load.report().rings[0].fd.expect("a descriptor");
    pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()).expect("pidfd_getfd")
}

/// Ends the holder that is asked first; the other one must serve.
fn next_holder(way: Way) -> Outcome {
    for _ in 0..3 {
        let load = workload("--rings 1 --bufs 5 --tag 3");
        let expected = load.report().rings[0].expected();
        let ours = adopt(&load);
        let ring = rings_of(way.backend(), load.pid()).remove(0);
        assert!(ring.holder(process::id(), Some(ours.as_raw_fd())).is_some());
        assert!(ring.holder(load.pid(), None).is_some());
        let mut iter = way.options().attach_ring(&ring)?;
        assert_reads(way, &mut iter, &expected);
        // The one with the lower number is asked first.
        if ring.owner().pid == process::id() {
            drop(ours);
            assert_reads(way, &mut iter, &expected);
            drop(load);
        } else {
            drop(load);
            assert_reads(way, &mut iter, &expected);
            drop(ours);
        }
        // A child that another trial is just about to start has all descriptors
        // of this process until it calls execve(2), and holds the ring so long.
        let start = Instant::now();
        let error = loop {
            let Err(error) = way.snapshot(&mut iter).map(drop) else {
                let all = finder(Backend::TaskFile).find_all()?.rings;
                let now = all.iter().find(|one| one.inode == ring.inode);
                let late = start.elapsed() > Duration::from_secs(5);
                assert!(!late, "nobody should hold {ring:#?}, but by now {now:#?}");
                continue;
            };
            break error;
        };
        assert!(matches!(error, Error::RingGone { .. }), "{error:?}");
    }
    done()
}

fn task_file_goes_on_to_the_next_holder() -> Outcome {
    next_holder(Way::TaskFile)
}

fn locked_goes_on_to_the_next_holder() -> Outcome {
    match no_locked_reads() {
        None => next_holder(Way::Locked),
        Some(reason) => super::results::skip(reason),
    }
}

fn fdinfo_goes_on_to_the_next_holder() -> Outcome {
    next_holder(Way::Fdinfo)
}
