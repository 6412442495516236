//! All registered buffers of a ring.

use std::fs::File;
use std::io;
use std::time::Duration;

use uring_bpf_iter::{Backend, RegisteredBuf, RegisteredBufs, UringBufIter};
use uring_testkit::{BufSpec, RingBuilder, TestRing};

use crate::bench::{Bench, Candidate, Case, Look, Result, Table};
use crate::drgn::Drgn;
use crate::text::{self, Text};
use crate::{limits, machine};

const BUFFERS: &[usize] = &[1, 64, 1024, 16_384];
const DESCRIPTORS: &[usize] = &[10, 19_000];
/// For a locked read: it takes microseconds, the owner is this process.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let drgn = match Drgn::start() {
        Ok((drgn, version)) => {
            bench.note(format!("`drgn`: {version}, without the lock, in Python"));
            Some(drgn)
        }
        Err(error) => {
            bench.leave_out("snapshot, drgn", error);
            None
        }
    };
    let numbers = if bench.once { &BUFFERS[..2] } else { BUFFERS };
    for &items in numbers {
        let ring = ring_of(items)?;
        let case = |group| Case {
            group,
            items,
            item: "buffer",
            each: true,
        };
        let mut warm = candidates(bench, &ring)?;
        if let Some(drgn) = &drgn {
            // The last one is the peer of the others.
            warm.insert(warm.len() - 1, by_drgn(drgn.clone(), &ring)?);
        }
        bench.compare(case("snapshot"), warm)?;
        let cold = candidates(bench, &ring)?;
        bench.compare_cold(case("snapshot, cold cache"), cold)?;
        if !bench.once && items == BUFFERS[BUFFERS.len() - 1] {
            memory(bench, &ring)?;
        }
    }
    among_descriptors(bench)
}

/// A ring of four buffers, in a process with few and with many descriptors.
fn among_descriptors(bench: &mut Bench) -> Result<()> {
    let ring = ring_of(4)?;
    let null = File::open("/dev/null")?;
    let numbers = if bench.once {
        &DESCRIPTORS[..1]
    } else {
        DESCRIPTORS
    };
    for &items in numbers {
        let case = Case {
            group: "4 buffers",
            items,
            item: "descriptor",
            each: false,
        };
        if let Err(why) = limits::descriptors(items) {
            bench.leave_out(format!("{}, {items}", case.group), why);
            continue;
        }
        let more: io::Result<Vec<File>> = (0..items).map(|_| null.try_clone()).collect();
        let more = more?;
        let all = candidates(bench, &ring)?;
        bench.compare(case, all)?;
        drop(more);
    }
    bench.note("`4 buffers`: in a process that has so many descriptors beside the ring's");
    Ok(())
}

/// A ring with so many registered buffers of one page.
pub(crate) fn ring_of(buffers: usize) -> Result<TestRing> {
    let mut ring = RingBuilder::new(8).build()?;
    ring.register(&vec![BufSpec::new(4096); buffers])?;
    Ok(ring)
}

fn candidates<'a>(bench: &mut Bench, ring: &TestRing) -> Result<Vec<Candidate<'a>>> {
    bench.note(
        "`fdinfo, read and parsed`: the file is kept open, so that the kernel keeps its \
         buffer, and so is ours",
    );
    let mut all = Vec::new();
    for (name, backend, locked) in [
        ("native", Backend::Native, false),
        ("task-file", Backend::TaskFile, false),
        ("task-file, locked", Backend::TaskFile, true),
        ("fdinfo, this crate", Backend::Fdinfo, false),
    ] {
        let made = library(name, ring, backend, locked);
        all.extend(bench.candidate("snapshot", name, made)?);
    }
    all.push(read_alone(ring)?);
    all.push(parsed("fdinfo, opened and parsed", ring, true)?);
    all.push(parsed("fdinfo, read and parsed", ring, false)?);
    Ok(all)
}

fn library<'a>(
    name: &'static str,
    ring: &TestRing,
    backend: Backend,
    locked: bool,
) -> Result<Candidate<'a>> {
    let mut iter = UringBufIter::options().backend(backend).attach(ring)?;
    let mut look = move |look: Look<'_, RegisteredBuf>| match locked {
        true => look(&iter.snapshot_locked(LIMIT)?),
        false => look(&iter.snapshot()?),
    };
    let seen = |bufs: &[RegisteredBuf]| {
        let ranges = bufs.iter().map(|buf| (buf.addr(), buf.len()));
        same(ranges, ring)
    };
    look(&seen)?;
    Ok(Candidate::new(name, move || {
        look(&|bufs| Ok(bufs.filled().map(RegisteredBuf::addr).sum()))
    }))
}

fn read_alone<'a>(ring: &TestRing) -> Result<Candidate<'a>> {
    let mut text = Text::open(std::process::id(), ring.raw_fd())?;
    Ok(Candidate::new("fdinfo, read alone", move || {
        Ok(text.read()?.len() as u64)
    }))
}

/// With the file opened for each look, as a tool does that looks at one ring
/// after the other, or kept open.
fn parsed<'a>(name: &'static str, ring: &TestRing, reopened: bool) -> Result<Candidate<'a>> {
    let mut text = Text::open(std::process::id(), ring.raw_fd())?;
    let mut ranges = Vec::new();
    let mut look = move |look: Look<'_, (u64, u64)>| {
        if reopened {
            text.reopen()?;
        }
        text::bufs(text.read()?, &mut ranges).ok_or("no list of buffers in fdinfo")?;
        look(&ranges)
    };
    look(&|ranges| same(ranges.iter().copied(), ring))?;
    Ok(Candidate::new(name, move || {
        look(&|ranges| Ok(ranges.iter().map(|(addr, _)| addr).sum()))
    }))
}

fn by_drgn<'a>(drgn: Drgn, ring: &TestRing) -> Result<Candidate<'a>> {
    let fd = ring.raw_fd();
    same(drgn.list(fd)?.into_iter(), ring)?;
    Ok(Candidate::new("drgn", move || drgn.sum(fd)))
}

/// Whether that is what was registered.
fn same(seen: impl Iterator<Item = (u64, u64)>, ring: &TestRing) -> Result<u64> {
    let registered = ring.expected().iter().flatten();
    match seen.eq(registered.map(|buf| (buf.addr, buf.len))) {
        true => Ok(0),
        false => Err("other buffers than those that were registered".into()),
    }
}

/// What an iterator takes, and whether it grows.
fn memory(bench: &mut Bench, ring: &TestRing) -> Result<()> {
    const SNAPSHOTS: usize = 1000;
    let resident = || machine::kib("/proc/self/status", "VmRSS").ok_or("no VmRSS");
    let before = resident()?;
    let mut iter = UringBufIter::attach(ring)?;
    let slots = iter.snapshot()?.len();
    let first = resident()?;
    for _ in 1..SNAPSHOTS {
        assert_eq!(iter.snapshot()?.len(), slots);
    }
    let last = resident()?;
    let (backend, bytes) = (iter.selection().backend, slots * size_of::<RegisteredBuf>());
    let title = format!("Resident memory of an iterator ({backend}) of {slots} buffers");
    let mut table = Table::new(title, ["when", "more than without it"]);
    for (when, kib) in [
        ("after 1 snapshot".to_owned(), first.saturating_sub(before)),
        (format!("after {SNAPSHOTS}"), last.saturating_sub(before)),
        ("of it records".to_owned(), bytes as u64 / 1024),
    ] {
        table.row([when, format!("{kib} KiB")]);
    }
    bench.tables.push(table);
    Ok(())
}
