//! The segments of registered buffers, against /proc/self/pagemap.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{capabilities, set_capabilities, CapabilitySet};
use serde_json::json;
use uring_bpf_iter::{
    Backend, BufPages, Consistency, Error, Result, RingFinder, Segment, Snapshot,
};
use uring_testkit::{
    ensure_huge_pages, page_frames, page_size, BufSpec, Flap, Flapper, Registered, RingBuilder,
    TestRing,
};

use super::memory::{available_bytes, HUGE};
use super::oracle::{error_at_last, kernel, rings_of, Way, LOCKED};
use super::results::skip;
use super::run::{again, workload};
use super::tool::{records, run};
use super::{done, inner, Outcome};

trials![
    frames_are_those_of_pagemap,
    pages_without_a_mapping,
    a_page_of_several_buffers,
    cloned_buffers,
    slots_that_are_empty_or_not_there,
    one_gibibyte_page_by_page,
    huge_pages_are_one_segment,
    without_cap_sys_admin,
    a_buffer_that_is_replaced,
    a_raw_look,
    another_ring_and_a_dead_one,
    of_another_process_by_every_holder,
    fdinfo_cannot,
    the_tool_lists_them,
    the_tool_joins_them_for_people,
];

const GIB: u64 = 1 << 30;

/// The ways that this kernel has, but fdinfo, which knows no pages.
fn ways() -> impl Iterator<Item = Way> {
    Way::all().filter(|way| *way != Way::Fdinfo)
}

#[track_caller]
fn open(way: Way, ring: &TestRing) -> BufPages {
    let options = BufPages::options().backend(way.backend());
    let pages = options.attach(ring);
    pages.unwrap_or_else(|e| panic!("{way:?}: {e}"))
}

fn segments(way: Way, pages: &mut BufPages, index: u64) -> Result<Snapshot<'_, Segment>> {
    match way {
        Way::Locked => pages.segments_locked(index, LOCKED),
        _ => pages.segments(index),
    }
}

/// The frames of a buffer that is mapped in this process, and pinned.
#[track_caller]
fn frames(buf: &Registered) -> Vec<u64> {
    let frames = page_frames(buf.addr, buf.len).expect("pagemap");
    let there = frames.into_iter().map(|frame| frame.expect("a page"));
    there.collect()
}

/// That these are the bytes of the buffer, and its frames.
#[track_caller]
fn assert_memory(way: Way, seen: &[Segment], buf: &Registered, frames: &[u64]) {
    assert_bytes(way, seen, buf);
    let shown: Vec<u64> = seen.iter().flat_map(Segment::pfns).collect();
    assert_eq!(shown, frames, "{way:?}, {buf:?}");
}

/// That these are as many bytes, page by page.
#[track_caller]
fn assert_bytes(way: Way, seen: &[Segment], buf: &Registered) {
    let page = page_size() as u64;
    let mut at = buf.addr;
    for segment in seen {
        let start = at;
        at += u64::from(segment.len());
        let context = || format!("{way:?}, {buf:?}, {start:#x}..{at:#x}: {segment:?}");
        assert!(at > start, "{}", context());
        assert_eq!(u64::from(segment.offset()), start % page, "{}", context());
        let touched = (at - 1) / page - start / page + 1;
        assert_eq!(segment.nr_pages(), touched, "{}", context());
        assert!(at == buf.addr + buf.len || at % page == 0, "{}", context());
    }
    assert_eq!(at - buf.addr, buf.len, "{way:?}, {buf:?}");
}

#[track_caller]
fn assert_snapshot(way: Way, seen: &Snapshot<'_, Segment>) {
    let consistency = match way {
        Way::TaskFile => Consistency::Verified,
        _ => Consistency::Locked,
    };
    assert_eq!(seen.consistency(), consistency, "{way:?}");
    assert_eq!(seen.backend(), way.backend());
}

fn ring() -> TestRing {
    RingBuilder::new(8).build().expect("a ring")
}

fn frames_are_those_of_pagemap() -> Outcome {
    let page = page_size();
    let specs = [
        BufSpec::new(1),
        BufSpec::new(1).at(page - 1),
        BufSpec::new(2).at(page - 1),
        BufSpec::new(page),
        BufSpec::new(page).at(1),
        BufSpec::new(7 * page - 100).at(50),
        // More than there is room for at first.
        BufSpec::new(5000 * page).at(77),
    ];
    let mut ring = ring();
    ring.register_sparse(20)?;
    ring.update(3, &specs.map(Some))?;
    for way in ways() {
        let mut pages = open(way, &ring);
        for (index, slot) in ring.expected().iter().enumerate() {
            let seen = segments(way, &mut pages, index as u64)?;
            assert_snapshot(way, &seen);
            match slot {
                Some(buf) => assert_memory(way, &seen, buf, &frames(buf)),
                None => assert_eq!(seen.len(), 0, "{way:?}, slot {index}"),
            }
        }
    }
    done()
}

fn pages_without_a_mapping() -> Outcome {
    let mut ring = ring();
    ring.register(&[BufSpec::new(100_000).at(5); 3])?;
    let bufs: Vec<Registered> = ring.expected().iter().flatten().copied().collect();
    let pinned: Vec<Vec<u64>> = bufs.iter().map(frames).collect();
    ring.drop_mapping();
    for (buf, pinned) in bufs.iter().zip(&pinned) {
        // Whoever has mapped something there since has other frames.
        let now = page_frames(buf.addr, buf.len)?;
        let same = now.iter().zip(pinned).filter(|(a, b)| **a == Some(**b));
        assert_eq!(same.count(), 0, "it is unmapped");
    }
    for way in ways() {
        let mut pages = open(way, &ring);
        for (index, (buf, pinned)) in bufs.iter().zip(&pinned).enumerate() {
            let seen = segments(way, &mut pages, index as u64)?;
            assert_memory(way, &seen, buf, pinned);
        }
    }
    done()
}

/// Registered twice, by two rings: the pages are the same.
fn a_page_of_several_buffers() -> Outcome {
    let page = page_size() as u64;
    let mut first = ring();
    first.register(&[BufSpec::new(3 * page_size())])?;
    let whole = first.expected()[0].expect("a buffer");
    let part = Registered {
        addr: whole.addr + page + 10,
        len: page,
        tag: 0,
    };
    let mut second = ring();
    second.register_foreign(&[part, whole])?;
    for way in ways() {
        let mut pages = open(way, &first);
        let all = segments(way, &mut pages, 0)?.to_vec();
        let mut others = open(way, &second);
        let again = segments(way, &mut others, 1)?.to_vec();
        assert_eq!(again, all, "{way:?}");
        let two = segments(way, &mut others, 0)?;
        assert_memory(way, &two, &part, &frames(&part));
        for (i, segment) in two.iter().enumerate() {
            for (j, one) in all.iter().enumerate() {
                let same = j == i + 1;
                assert_eq!(segment.same_page(one), same, "{way:?}: {i}, {j}");
                assert_eq!(segment.pfn() == one.pfn(), same, "{way:?}: {i}, {j}");
            }
        }
    }
    done()
}

fn cloned_buffers() -> Outcome {
    let mut source = ring();
    source.register(&[BufSpec::new(50_000).at(9)])?;
    let mut clone = ring();
    if let Err(e) = clone.clone_buffers_from(&source) {
        return skip(format!("IORING_REGISTER_CLONE_BUFFERS: {e}"));
    }
    let buf = source.expected()[0].expect("a buffer");
    let pinned = frames(&buf);
    drop(source);
    for way in ways() {
        let seen = &mut open(way, &clone);
        assert_memory(way, &segments(way, seen, 0)?, &buf, &pinned);
    }
    done()
}

#[track_caller]
fn assert_no_slot(way: Way, pages: &mut BufPages, ring: &TestRing, wanted: u64, size: u64) {
    let error = segments(way, pages, wanted).map(drop).unwrap_err();
    assert!(!error.is_retryable());
    let Error::NoSuchSlot {
        ring: inode,
        index,
        slots,
    } = error
    else {
        panic!("{way:?}: {error:?}");
    };
    assert_eq!(Some(inode), ring.inode());
    assert_eq!((index, slots), (wanted, size), "{way:?}");
}

fn slots_that_are_empty_or_not_there() -> Outcome {
    let mut ring = ring();
    for way in ways() {
        let mut pages = open(way, &ring);
        assert_no_slot(way, &mut pages, &ring, 0, 0);
    }
    ring.register_sparse(100)?;
    ring.update(50, &[Some(BufSpec::new(10))])?;
    for way in ways() {
        let mut pages = open(way, &ring);
        for (index, count) in [(0, 0), (49, 0), (50, 1), (51, 0), (99, 0)] {
            let seen = segments(way, &mut pages, index)?;
            assert_eq!(seen.len(), count, "{way:?}, slot {index}");
            assert_snapshot(way, &seen);
        }
        for index in [100, 101, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            assert_no_slot(way, &mut pages, &ring, index, 100);
        }
        assert_eq!(segments(way, &mut pages, 50)?.len(), 1, "{way:?}");
    }
    done()
}

/// In a process of its own: whoever forks beside it would copy pinned pages.
fn one_gibibyte_page_by_page() -> Outcome {
    inner::expect_done(&mut again("segments-of-much"));
    done()
}

pub(super) fn inside_much() {
    let len = match available_bytes() {
        free if free > 3 * GIB => GIB,
        free => free / 4,
    };
    // The largest that the kernel registers, touching one page more.
    let mut ring = ring();
    ring.register(&[BufSpec::new(len as usize).at(1)])
        .expect("register");
    let buf = ring.expected()[0].expect("a buffer");
    let pinned = frames(&buf);
    for way in ways() {
        let mut pages = open(way, &ring);
        let seen = segments(way, &mut pages, 0).unwrap_or_else(|e| panic!("{way:?}: {e}"));
        assert_memory(way, &seen, &buf, &pinned);
        assert_eq!(seen.len() as u64, len / page_size() as u64 + 1, "{way:?}");
    }
}

fn huge_pages_are_one_segment() -> Outcome {
    const WANTED: usize = 6;
    let _one_at_a_time = HUGE.lock().unwrap_or_else(PoisonError::into_inner);
    match ensure_huge_pages(WANTED) {
        Ok(free) if free >= WANTED => {}
        Ok(free) => return skip(format!("{free} huge pages are free, {WANTED} are needed")),
        Err(e) => return skip(format!("no huge pages: {e}")),
    }
    inner::expect_done(&mut again("segments-of-huge-pages"));
    done()
}

pub(super) fn inside_huge_pages() {
    const MIB: usize = 1 << 20;
    let mut ring = ring();
    let specs = [
        // Whole; inside of one; over the border of two, twice.
        (BufSpec::new(2 * MIB), 1),
        (BufSpec::new(MIB).at(64 * 1024 + 3), 1),
        (BufSpec::new(2 * MIB).at(MIB + 5), 2),
        (BufSpec::new(MIB).at(2 * MIB - 1), 2),
    ];
    let in_huge = specs.map(|(spec, _)| spec.in_huge_pages());
    ring.register(&in_huge).expect("register");
    for way in ways() {
        let mut pages = open(way, &ring);
        for (index, buf) in ring.expected().iter().flatten().enumerate() {
            let seen = segments(way, &mut pages, index as u64).expect("segments");
            assert_memory(way, &seen, buf, &frames(buf));
            if kernel() >= (6, 12) && page_size() == 4096 {
                assert_eq!(seen.len(), specs[index].1, "{way:?}, {buf:?}");
            }
        }
    }
}

fn without_cap_sys_admin() -> Outcome {
    inner::expect_done(&mut again("segments-without-rights"));
    done()
}

pub(super) fn inside_without_rights() {
    let mut ring = ring();
    ring.register(&[BufSpec::new(20_000).at(100)])
        .expect("register");
    let buf = ring.expected()[0].expect("a buffer");
    let pinned = frames(&buf);
    let mut before: Vec<(Way, BufPages)> = ways().map(|way| (way, open(way, &ring))).collect();
    for (way, pages) in &mut before {
        let seen = segments(*way, pages, 0).expect("with all rights");
        assert_memory(*way, &seen, &buf, &pinned);
    }

    let mut sets = capabilities(None).expect("capabilities");
    sets.effective &= !CapabilitySet::SYS_ADMIN;
    sets.permitted &= !CapabilitySet::SYS_ADMIN;
    sets.inheritable &= !CapabilitySet::SYS_ADMIN;
    set_capabilities(None, sets).expect("to drop a capability");
    let refused = page_frames(buf.addr, buf.len).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EPERM), "pagemap");

    // Neither who could see them before nor who comes after.
    let after: Vec<(Way, BufPages)> = ways().map(|way| (way, open(way, &ring))).collect();
    for (way, mut pages) in before.into_iter().chain(after) {
        let seen = segments(way, &mut pages, 0).unwrap_or_else(|e| panic!("{way:?}: {e}"));
        assert_bytes(way, &seen, &buf);
        assert_eq!(seen.len(), pinned.len(), "{way:?}");
        assert!(seen.iter().all(|one| one.pfn().is_none()), "{way:?}");
        let text = format!("{:?}", seen.records());
        assert!(!text.contains("ffff"), "no kernel address: {text}");
        assert!(seen[0].same_page(&seen[0]) && !seen[0].same_page(&seen[1]));
    }
}

/// Never a part of the old buffer and a part of the new one.
fn a_buffer_that_is_replaced() -> Outcome {
    for how in [Flap::Update, Flap::Reregister] {
        let ring = RingBuilder::new(8).cq_entries(64).build()?;
        let flapper = Flapper::start(ring, 1, how)?;
        let (a, b) = (flapper.states().a[0], flapper.states().b[0]);
        flapper.rest(Duration::from_micros(200));
        for way in ways() {
            let mut pages = BufPages::options()
                .backend(way.backend())
                .attach(&flapper)?;
            let mut seen = BTreeSet::new();
            let start = Instant::now();
            while seen.len() < 2 {
                assert!(
                    start.elapsed() < Duration::from_secs(60),
                    "{way:?}: {seen:?}"
                );
                // A page that is not pinned just now may get another frame.
                let frames = || [a, b].map(|buf| page_frames(buf.addr, 1).expect("pagemap"));
                let before = frames();
                match segments(way, &mut pages, 0) {
                    Ok(one) => {
                        let is_a = one.first().map(Segment::offset) == Some(0);
                        assert_bytes(way, &one, if is_a { &a } else { &b });
                        let (pfn, after) = (vec![one[0].pfn()], frames());
                        let state = usize::from(!is_a);
                        assert!(
                            pfn == before[state] || pfn == after[state],
                            "{way:?}, {how:?}: {pfn:?}, {before:?}, {after:?}"
                        );
                        seen.insert(state);
                    }
                    Err(Error::NoSuchSlot { slots: 0, .. }) if how == Flap::Reregister => {}
                    Err(error) => assert!(error.is_retryable(), "{way:?}, {how:?}: {error}"),
                }
                thread::sleep(Duration::from_micros(50));
            }
        }
        flapper.stop()?;
    }
    done()
}

fn a_raw_look() -> Outcome {
    let mut ring = ring();
    ring.register(&[BufSpec::new(30_000)])?;
    let buf = ring.expected()[0].expect("a buffer");
    let mut pages = open(Way::TaskFile, &ring);
    let seen = pages.segments_raw(0)?;
    assert_eq!(seen.consistency(), Consistency::Raw);
    assert_memory(Way::TaskFile, &seen, &buf, &frames(&buf));
    done()
}

fn another_ring_and_a_dead_one() -> Outcome {
    let mut one = ring();
    one.register(&[BufSpec::new(5000)])?;
    let mut other = ring();
    other.register(&[BufSpec::new(9), BufSpec::new(20_000).at(8)])?;
    let me = std::process::id();
    let other_found = RingFinder::new()?.find_fd(me, other.raw_fd())?;
    let mut open_ones: Vec<_> = ways().map(|way| (way, open(way, &one))).collect();
    for (way, pages) in &mut open_ones {
        pages.reattach(&other_found)?;
        let buf = other.expected()[1].expect("a buffer");
        assert_memory(*way, &segments(*way, pages, 1)?, &buf, &frames(&buf));
    }
    let inode = other.inode();
    drop(other);
    for (way, pages) in &mut open_ones {
        let error = error_at_last(|| segments(*way, pages, 1).map(drop));
        assert!(
            matches!(&error, Error::RingGone { ring, .. } if Some(*ring) == inode),
            "{way:?}: {error}"
        );
    }
    done()
}

/// Also one without a descriptor.
fn of_another_process_by_every_holder() -> Outcome {
    let load = workload("--rings 1 --bufs 3 --len 9000 --offset 33");
    let report = &load.report().rings[0];
    let fd = report.fd.expect("a descriptor");
    for way in ways() {
        let mut pages = BufPages::options()
            .backend(way.backend())
            .attach_pid(load.pid(), fd)?;
        for (index, buf) in report.expected().iter().flatten().enumerate() {
            let seen = segments(way, &mut pages, index as u64)?;
            assert_bytes(way, &seen, buf);
            assert!(seen.iter().all(|one| one.pfn().is_some()), "{way:?}");
        }
    }
    let mut mapped = ring();
    mapped.register(&[BufSpec::new(9000).at(33)])?;
    let inode = mapped.inode();
    mapped.close_fd_keep_mapping();
    let buf = mapped.expected()[0].expect("a buffer");
    let found = rings_of(Backend::TaskFile, std::process::id());
    let found = found.iter().find(|ring| Some(ring.inode) == inode);
    let mut pages = BufPages::attach_ring(found.expect("the mapping"))?;
    assert_eq!(pages.selection().backend, Backend::TaskFile);
    let seen = pages.segments(0)?;
    assert_memory(Way::TaskFile, &seen, &buf, &frames(&buf));
    done()
}

fn fdinfo_cannot() -> Outcome {
    let ring = ring();
    let options = BufPages::options().backend(Backend::Fdinfo);
    let error = options.attach(&ring).map(drop).unwrap_err();
    assert!(matches!(error, Error::NoBackend { .. }), "{error}");
    assert!(error.to_string().contains("pages of buffers"), "{error}");
    done()
}

fn backends() -> impl Iterator<Item = Way> {
    ways().filter(|way| *way != Way::Locked)
}

fn the_tool_lists_them() -> Outcome {
    let mut ring = ring();
    ring.register_sparse(5)?;
    let specs = [BufSpec::new(10_000).at(99), BufSpec::new(1)];
    ring.update(2, &specs.map(Some))?;
    let only = format!("--pid {} --fd {}", std::process::id(), ring.raw_fd());
    for backend in backends().map(Way::backend) {
        let args = format!("{only} --backend {backend} --pages");
        let mut lines = records("bufs", &args).into_iter().peekable();
        assert_eq!(lines.next().expect("a line")["type"], "ring");
        for index in [2, 3] {
            let buf = lines.next().expect("a line");
            assert_eq!(
                (&buf["type"], &buf["index"]),
                (&json!("buf"), &json!(index))
            );
            let known = ring.expected()[index].expect("a buffer");
            let (mut len, mut pfns) = (0, Vec::new());
            while let Some(line) = lines.next_if(|line| line["type"] == "segment") {
                assert_eq!(line["index"], index, "{line}");
                assert_eq!(line["segment"], pfns.len(), "{line}");
                assert_eq!(Some(line["ring"].as_u64()), Some(ring.inode()), "{line}");
                let offset = (known.addr + len) % page_size() as u64;
                assert_eq!(line["offset"], offset, "{line}");
                len += line["len"].as_u64().expect("a length");
                pfns.push(line["pfn"].as_u64().expect("a number"));
            }
            assert_eq!((len, pfns), (known.len, frames(&known)), "{backend}");
        }
        assert_eq!(lines.next(), None);
    }
    // What fdinfo does not show is missed once, the rest is there.
    let ran = run("bufs", &format!("{only} --backend fdinfo --pages"));
    assert_eq!(ran.status.code(), Some(3), "{ran:?}");
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    let address = ring.expected()[2].expect("a buffer").addr;
    assert!(ran.stdout.contains(&format!("{address:#x}")), "{ran:?}");
    done()
}

fn the_tool_joins_them_for_people() -> Outcome {
    let mut ring = ring();
    ring.register(&[BufSpec::new(300_000).at(99)])?;
    let pinned = frames(&ring.expected()[0].expect("a buffer"));
    let breaks = pinned.windows(2).filter(|two| two[1] != two[0] + 1);
    let runs = 1 + breaks.count();
    let only = format!("--pid {} --fd {}", std::process::id(), ring.raw_fd());
    for backend in backends().map(Way::backend) {
        let ran = run("bufs", &format!("{only} --backend {backend} --pages"));
        let head = format!("buffer 0: {} pages in {runs} run", pinned.len());
        let mut lines = ran.stdout.lines().skip_while(|line| !line.contains(&head));
        assert!(lines.next().is_some(), "{head}: {ran:?}");
        let first = format!("{:#x}", pinned[0]);
        let line = lines.nth(1).expect("a run");
        assert!(line.trim_start().starts_with(&first), "{first}: {line}");
    }
    done()
}
