//! All registered files of a ring. fdinfo has their names alone.

use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::pipe;
use uring_bpf_iter::{Backend, RegisteredFile, UringFileIter};
use uring_testkit::{RingBuilder, TestRing};

use crate::bench::{Bench, Candidate, Case, Look, Result};
use crate::limits;
use crate::snapshot::LIMIT;
use crate::text::{self, Text};

const FILES: &[usize] = &[1, 64, 1024, 16_384, 65_536];
/// Files that are not the same one; they take turns in larger tables.
const DIFFERENT: usize = 1024;

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let numbers = if bench.once { &FILES[..2] } else { FILES };
    for &items in numbers {
        // A table may not be larger than a table of descriptors.
        if let Err(why) = limits::descriptors(items) {
            bench.leave_out(format!("files, {items}"), why);
            continue;
        }
        let ring = ring_of(items)?;
        let mut all = Vec::new();
        for (name, backend, locked) in [
            ("native", Backend::Native, false),
            ("task-file", Backend::TaskFile, false),
            ("task-file, locked", Backend::TaskFile, true),
        ] {
            let made = library(name, &ring, backend, locked);
            all.extend(bench.candidate("files", name, made)?);
        }
        all.push(read_and_parsed(&ring)?);
        let case = Case {
            group: "files",
            items,
            item: "file",
            each: true,
        };
        bench.compare(case, all)?;
    }
    Ok(())
}

/// A ring with so many registered files, each with an inode of its own as far as
/// [`DIFFERENT`] goes.
fn ring_of(files: usize) -> Result<TestRing> {
    let pipes: Vec<(OwnedFd, OwnedFd)> = (0..files.min(DIFFERENT))
        .map(|_| pipe())
        .collect::<Result<_, _>>()?;
    let ends = pipes.iter().map(|(reader, _)| reader.as_fd());
    let table: Vec<_> = ends.cycle().take(files).collect();
    let mut ring = RingBuilder::new(8).build()?;
    ring.register_files(&table)?;
    Ok(ring)
}

fn library<'a>(
    name: &'static str,
    ring: &TestRing,
    backend: Backend,
    locked: bool,
) -> Result<Candidate<'a>> {
    let mut iter = UringFileIter::options().backend(backend).attach(ring)?;
    let mut look = move |look: Look<'_, RegisteredFile>| match locked {
        true => look(&iter.snapshot_locked(LIMIT)?),
        false => look(&iter.snapshot()?),
    };
    let inode = |slot: &RegisteredFile| slot.file().map_or(0, |file| file.inode());
    let known = |slots: &[RegisteredFile]| {
        let registered = ring.expected_files().iter().flatten();
        right(
            slots
                .iter()
                .map(inode)
                .eq(registered.map(|file| file.inode)),
        )
    };
    look(&known)?;
    Ok(Candidate::new(name, move || {
        look(&|slots| Ok(slots.iter().map(inode).sum()))
    }))
}

fn read_and_parsed<'a>(ring: &TestRing) -> Result<Candidate<'a>> {
    let mut text = Text::open(std::process::id(), ring.raw_fd())?;
    let mut look = move |look: &dyn Fn(&[&[u8]]) -> Result<u64>| {
        let text = text.read()?;
        // Names lie in the text: the list of them cannot outlive it.
        let mut names = Vec::new();
        text::files(text, &mut names).ok_or("no list of files in fdinfo")?;
        look(&names)
    };
    let known = |names: &[&[u8]]| {
        let registered = ring.expected_files().iter().flatten();
        let registered = registered.map(|file| file.name.as_bytes());
        right(names.iter().copied().eq(registered))
    };
    look(&known)?;
    Ok(Candidate::new("fdinfo, read and parsed", move || {
        look(&|names| Ok(names.iter().map(|name| name.len() as u64).sum()))
    }))
}

fn right(same: bool) -> Result<u64> {
    match same {
        true => Ok(0),
        false => Err("other files than those that were registered".into()),
    }
}
