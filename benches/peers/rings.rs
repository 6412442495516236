//! The registered buffers of many rings that are known, read one after the other.

use std::collections::HashSet;

use uring_bpf_iter::{Backend, RegisteredBuf, RegisteredBufs, Ring, RingFinder, UringBufReader};
use uring_testkit::cpu_time;

use crate::bench::{wall, Bench, Candidate, Case, Clock, Result};
use crate::holders::{Hold, Holders};
use crate::text::{self, Text};

/// The rings, each in a process of its own.
const RINGS: usize = 1000;
/// Of each of these rings.
const BUFFERS: usize = 64;

/// The rings of a PostgreSQL for 100 connections, and how many of its processes hold
/// each.
const SHARED: Hold = Hold {
    rings: 142,
    buffers: 1,
    processes: 15,
};

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let Some(holders) = one_each(bench, "rings")? else {
        return Ok(());
    };
    compare(bench, "rings", &holders, wall)?;
    drop(holders);
    let mut holders = Holders::new(SHARED)?;
    holders.grow(1)?;
    compare(bench, "rings, shared, CPU", &holders, cpu_time)?;
    bench.note(format!(
        "`rings, shared`: {} processes hold each; `CPU`: not the time that passed, but \
         what processors have spent",
        SHARED.processes
    ));
    Ok(())
}

/// Many processes with a ring each, if this machine can have them.
pub(crate) fn one_each(bench: &mut Bench, group: &str) -> Result<Option<Holders>> {
    if bench.machine.is_emulated() {
        let why = "an emulated processor takes too long to start so many processes";
        bench.leave_out(group, why);
        return Ok(None);
    }
    let mut holders = Holders::new(Hold {
        rings: 1,
        buffers: BUFFERS,
        processes: 1,
    })?;
    holders.grow(if bench.once { 2 } else { RINGS })?;
    Ok(Some(holders))
}

fn compare(bench: &mut Bench, group: &'static str, holders: &Holders, clock: Clock) -> Result<()> {
    let rings = rings_of(holders)?;
    let mut all: Vec<Candidate<'_>> = Vec::new();
    all.extend(bench.candidate(group, "task-file", library(&rings))?);
    all.push(opened_and_parsed(&rings)?);
    let all = all
        .into_iter()
        .map(|candidate| candidate.by_clock(clock))
        .collect();
    let case = Case {
        group,
        items: rings.len(),
        item: "ring",
        each: true,
    };
    bench.compare(case, all)
}

/// The rings of these processes.
pub(crate) fn rings_of(holders: &Holders) -> Result<Vec<Ring>> {
    let pids: HashSet<u32> = holders.pids().collect();
    let mut rings = RingFinder::new()?.find_all()?.rings;
    rings.retain(|ring| pids.contains(&ring.owner().pid));
    holders.all_found(rings.iter().map(|ring| ring.owner().pid))?;
    Ok(rings)
}

fn library(rings: &[Ring]) -> Result<Candidate<'_>> {
    let options = UringBufReader::options().backend(Backend::TaskFile);
    let mut reader = options.reader();
    let mut texts = Texts::new()?;
    for ring in rings {
        let bufs = reader.snapshot(ring)?;
        let ranges = bufs.iter().map(|buf| (buf.addr(), buf.len()));
        if !ranges.eq(texts.bufs(ring)?.iter().copied()) {
            return Err("other buffers than /proc has".into());
        }
    }
    Ok(Candidate::new("task-file", move || {
        rings.iter().try_fold(0_u64, |sum, ring| {
            let bufs = reader.snapshot(ring)?;
            let addrs = bufs.filled().map(RegisteredBuf::addr);
            Ok(addrs.fold(sum, u64::wrapping_add))
        })
    }))
}

fn opened_and_parsed(rings: &[Ring]) -> Result<Candidate<'_>> {
    let mut texts = Texts::new()?;
    Ok(Candidate::new("fdinfo, opened and parsed", move || {
        rings.iter().try_fold(0_u64, |sum, ring| {
            let addrs = texts.bufs(ring)?.iter().map(|(addr, _)| *addr);
            Ok(addrs.fold(sum, u64::wrapping_add))
        })
    }))
}

/// The peer: the text of one ring after the other, with the same memory.
pub(crate) struct Texts {
    text: Text,
    ranges: Vec<(u64, u64)>,
}

impl Texts {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            text: Text::open(std::process::id(), 0)?,
            ranges: Vec::new(),
        })
    }

    /// Address and length of each buffer.
    pub(crate) fn bufs(&mut self, ring: &Ring) -> Result<&[(u64, u64)]> {
        let owner = ring.owner();
        let fd = owner.fd().ok_or("no descriptor")?;
        self.text.turn_to(owner.pid, fd)?;
        text::bufs(self.text.read()?, &mut self.ranges).ok_or("no list of buffers in fdinfo")?;
        Ok(&self.ranges)
    }
}
