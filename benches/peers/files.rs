//! All registered files of a ring. fdinfo has their names alone.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{memfd_create, MemfdFlags};
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
        bench.note("fdinfo tells of a registered file its name alone");
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

/// A ring with so many registered files, each of its own as far as [`DIFFERENT`]
/// goes. Their names are of one length: no one is a part of another.
fn ring_of(files: usize) -> Result<TestRing> {
    let made: Vec<OwnedFd> = (0..files.min(DIFFERENT))
        .map(|i| memfd_create(format!("{i:04}"), MemfdFlags::CLOEXEC))
        .collect::<Result<_, _>>()?;
    let table: Vec<_> = made.iter().cycle().take(files).map(AsFd::as_fd).collect();
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
        let registered: Vec<_> = ring.expected_files().iter().flatten().collect();
        let mut pairs = names.iter().zip(&registered);
        // `/memfd:0007\040(deleted)`, or before Linux 6.13 its last part, `memfd:0007`.
        let same = pairs.all(|(name, file)| {
            let name = name.split(|byte| *byte == b'\\').next();
            let name = String::from_utf8_lossy(name.unwrap_or_default());
            name.contains("memfd:") && file.name.contains(&*name)
        });
        right(same && names.len() == registered.len())
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
