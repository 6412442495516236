//! Memory that is more than some base pages: huge pages, a gibibyte, and what
//! the kernel accounts for it.

use std::fs;
use std::process;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use uring_bpf_iter::{RegisteredBufs, UringBufIter};
use uring_testkit::{
    ensure_huge_pages, free_huge_pages, page_size, BufSpec, RingBuilder, Workload,
};

use super::oracle::{
    assert_places, assert_ring, attach, by_inode, kernel, no_locked_reads, pinned_bytes, rings_of,
    vm_pin_bytes, Way,
};
use super::results::skip;
use super::run::{again, workload};
use super::{done, inner, Outcome};

trials![
    one_gibibyte,
    huge_pages,
    a_locked_read_beside_ones_own_huge_pages,
    accounted_is_vm_pin,
];

/// There are few huge pages: one trial at a time has them.
pub(super) static HUGE: Mutex<()> = Mutex::new(());

const GIB: u64 = 1 << 30;

pub(super) fn available_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("meminfo");
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("MemAvailable") * 1024
}

/// In another process: a locked read copies this one.
fn one_gibibyte() -> Outcome {
    if available_bytes() < 3 * GIB {
        return skip("3 GiB of memory are not available");
    }
    for (offset, pages) in [(0, GIB / 4096), (1, GIB / 4096 + 1)] {
        let load = workload(&format!("--bufs 1 --len {GIB} --offset {offset}"));
        let ring = &load.report().rings[0];
        let fd = ring.fd.expect("a descriptor");
        assert_ring(load.pid(), fd, &ring.expected());
        let mut iter = UringBufIter::attach_pid(load.pid(), fd).expect("attach");
        let bufs = iter.snapshot().expect("snapshot");
        assert_eq!(bufs[0].len(), GIB);
        if page_size() == 4096 {
            assert_eq!(bufs[0].nr_pages(), pages);
            assert_eq!(bufs.pinned_bytes(), pages * 4096);
        }
    }
    done()
}

fn huge_pages() -> Outcome {
    const MIB: usize = 1 << 20;
    const WANTED: usize = 4;
    if page_size() != 4096 {
        return skip("the sizes of this test are those of 4 KiB and 2 MiB pages");
    }
    let _one_at_a_time = HUGE.lock().unwrap_or_else(PoisonError::into_inner);
    match ensure_huge_pages(WANTED) {
        Ok(free) if free >= WANTED => {}
        Ok(free) => return skip(format!("{free} huge pages are free, {WANTED} are needed")),
        Err(e) => return skip(format!("no huge pages: {e}")),
    }
    // In another process: see `a_locked_read_beside_ones_own_huge_pages`.
    for (len, offset, segments, pages) in [
        (2 * MIB, 0, 1, 512),
        (MIB, 64 * 1024, 1, 256),
        (2 * MIB, MIB + 5, 2, 513),
    ] {
        let args = format!("--huge --bufs 1 --len {len} --offset {offset}");
        let load = match Workload::spawn(args.split_whitespace()) {
            Ok(load) => load,
            Err(e) => {
                let free = ensure_huge_pages(WANTED).unwrap_or(0);
                assert!(free < WANTED, "{free} huge pages are free, and yet: {e}");
                return skip(format!("huge pages were there and are not any more: {e}"));
            }
        };
        let report = &load.report().rings[0];
        for way in Way::all() {
            let mut iter = attach(way, load.pid(), report.fd.expect("a descriptor"));
            let bufs = way.snapshot(&mut iter)?;
            assert_places(way, &bufs, &report.expected());
            assert_eq!(bufs[0].nr_pages(), pages);
            if way == Way::Fdinfo || kernel() < (6, 12) {
                continue;
            }
            assert_eq!(bufs[0].bvec_shift(), Some(21), "{way:?}, {args}");
            assert_eq!(bufs[0].nr_bvecs(), Some(segments), "{way:?}, {args}");
            if kernel() < (6, 19) {
                // A huge page is charged whole.
                assert_eq!(
                    bufs[0].acct_pages(),
                    Some(512 * segments),
                    "{way:?}, {args}"
                );
            }
        }
    }
    done()
}

/// A locked read is made by a child, and to fork copies pinned huge pages:
/// for that there may be none left.
fn a_locked_read_beside_ones_own_huge_pages() -> Outcome {
    if let Some(reason) = no_locked_reads() {
        return skip(reason);
    }
    let _one_at_a_time = HUGE.lock().unwrap_or_else(PoisonError::into_inner);
    match ensure_huge_pages(1) {
        Ok(free) if free >= 1 => {}
        Ok(_) => return skip("no huge page is free"),
        Err(e) => return skip(format!("no huge pages: {e}")),
    }
    // In a process of its own: other trials make locked reads in this one.
    inner::expect_done(&mut again("huge-pages"));
    done()
}

/// The kernel takes rings down in the background, and their pages with them.
fn settled_huge_pages() -> usize {
    let mut before = usize::MAX;
    loop {
        let free = free_huge_pages().expect("huge pages");
        if free == before {
            return free;
        }
        before = free;
        thread::sleep(Duration::from_millis(500));
    }
}

/// Runs in that process.
pub(super) fn inside_huge_pages() {
    let free = settled_huge_pages();
    let mut ring = RingBuilder::new(8).build().expect("ring");
    let all = vec![BufSpec::new(4096).in_huge_pages(); free];
    ring.register(&all).expect("register");
    assert_eq!(free_huge_pages().expect("huge pages"), 0);
    let mut iter = attach(Way::Locked, process::id(), ring.raw_fd());
    let bufs = Way::Locked.snapshot(&mut iter).expect("locked");
    assert_places(Way::Locked, &bufs, ring.expected());
}

/// The kernel keeps a sum for the process. It is none of the crate's doing.
fn accounted_is_vm_pin() -> Outcome {
    let quiet = workload("--rings 1 --bufs 0");
    let base = vm_pin_bytes(quiet.pid());
    for args in [
        "--rings 1 --bufs 1 --len 1",
        "--rings 1 --bufs 300 --len 5000 --offset 4000",
        "--rings 1 --sparse 5000 --bufs 77",
        "--rings 1 --bufs 20 --drop-mapping",
    ] {
        let load = workload(args);
        let report = &load.report().rings[0];
        let pinned = pinned_bytes(&report.expected());
        // Linux 7.x counts only what is charged to somebody (io_buffer_account_pin,
        // io_uring/rsrc.c), which a ring of root's is not.
        let counted = if kernel() < (6, 19) { pinned } else { 0 };
        let seen = vm_pin_bytes(load.pid()) - base;
        assert_eq!(seen, counted, "oracles disagree: {args}");

        let rings = rings_of(uring_bpf_iter::Backend::TaskFile, load.pid());
        let sum = by_inode(&rings, report.inode.expect("an inode"))
            .pinned
            .expect("a quiet ring");
        assert_eq!(sum.bytes, pinned, "{args}");
        let mut iter = UringBufIter::attach_ring(&rings[0])?;
        let bufs = iter.snapshot()?;
        assert_eq!(bufs.pinned_bytes(), pinned, "{args}");
        if kernel() < (6, 19) {
            assert_eq!(sum.accounted, Some(pinned), "{args}");
            let pages = pinned / page_size() as u64;
            assert_eq!(RegisteredBufs::acct_pages(&bufs[..]), Some(pages), "{args}");
        }
    }
    done()
}
