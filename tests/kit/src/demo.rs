//! A few rings that differ in every way worth a row in a table. Some MiB of
//! locked memory in all, so that it also works under the default
//! RLIMIT_MEMLOCK of 8 MiB.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::buf::{free_huge_pages, BufSpec};
use crate::builder::RingBuilder;
use crate::ring::TestRing;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The rings of the demo.
#[derive(Debug, Default)]
pub struct Demo {
    /// What each ring shows, and the ring.
    pub rings: Vec<(String, TestRing)>,
    /// What this machine could not show, and why.
    pub skipped: Vec<String>,
}

/// Makes them.
///
/// # Errors
/// What the kernel says to a ring that every supported kernel has.
pub fn rings() -> io::Result<Demo> {
    let mut demo = Demo::default();
    let mut add = |kind: &str, ring| demo.rings.push((kind.to_owned(), ring));
    let null = File::open("/dev/null")?;

    let mut ring = RingBuilder::new(64).build()?;
    ring.register(&[BufSpec::new(4 * KIB); 4])?;
    ring.register_files(&[null.as_fd(), null.as_fd()])?;
    add("pages", ring);

    let mut ring = RingBuilder::new(8).build()?;
    ring.register(&[BufSpec::new(1000).at(100), BufSpec::new(1000).at(3600)])?;
    add("unaligned", ring);

    let mut ring = RingBuilder::new(128).coop_taskrun().build()?;
    ring.register_tagged(&[BufSpec::new(MIB).tagged(0x1_000_000)])?;
    add("1 MiB", ring);

    let mut ring = RingBuilder::new(16).build()?;
    ring.register_sparse(8)?;
    for (slot, len) in [(1, 4 * KIB), (4, 16 * KIB), (6, 512)] {
        ring.update(
            slot,
            &[Some(
                BufSpec::new(len).tagged(0xC0DE_0000 + u64::from(slot)),
            )],
        )?;
    }
    ring.register_files_sparse(16)?;
    add("sparse, tagged", ring);

    let mut ring = RingBuilder::new(256)
        .sqpoll(Duration::from_millis(10))
        .build()?;
    ring.register(&[BufSpec::new(64 * KIB); 2])?;
    add("SQPOLL", ring);

    let mut ring = RingBuilder::new(8).build()?;
    ring.register(&[BufSpec::new(128 * KIB)])?;
    ring.drop_mapping();
    add("memory unmapped", ring);

    let mut ring = RingBuilder::new(32).defer_taskrun().build()?;
    ring.register(&[BufSpec::new(8 * KIB), BufSpec::new(32 * KIB)])?;
    add("DEFER_TASKRUN", ring);

    match huge_ring() {
        Ok(ring) => demo.rings.push(("huge page".to_owned(), ring)),
        Err(e) => demo.skipped.push(format!("huge page: {e}")),
    }
    Ok(demo)
}

fn huge_ring() -> io::Result<TestRing> {
    if free_huge_pages()? == 0 {
        let text = "no huge page is free (vm.nr_hugepages)";
        return Err(io::Error::new(io::ErrorKind::OutOfMemory, text));
    }
    let mut ring = RingBuilder::new(8).build()?;
    ring.register(&[BufSpec::new(MIB).at(64 * KIB).in_huge_pages()])?;
    Ok(ring)
}
