//! Where the pages of one large buffer are.

use std::process::id;

use uring_bpf_iter::{Backend, BufPages, Segment};
use uring_testkit::{BufSpec, Registered, RingBuilder, TestRing};

use crate::bench::{Bench, Candidate, Case, Result};
use crate::limits;

/// The longest buffer that a kernel takes.
const BYTES: usize = 1 << 30;
const PAGE: usize = 4096;
/// Of an entry of /proc/PID/pagemap; the lower ones are the page's frame number.
const FLAGS: u64 = 0x1ff << 55;

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let wanted = if bench.once { 64 * PAGE } else { BYTES };
    let bytes = limits::memory(wanted);
    if bytes < wanted {
        let why = "memory is short";
        bench.leave_out(format!("pages, more than {} MiB", bytes >> 20), why);
    }
    let mut ring = RingBuilder::new(8).build()?;
    ring.register(&[BufSpec::new(bytes)])?;
    let buf = ring.expected()[0].ok_or("no buffer")?;

    // The peer says what is right, and the others have to agree with it.
    let mut map = Pagemap::open(buf)?;
    let right = map.read()?.to_vec();
    let mut all = Vec::new();
    for (name, backend) in [
        ("native", Backend::Native),
        ("task-file", Backend::TaskFile),
    ] {
        let made = library(name, &ring, backend, &right);
        all.extend(bench.candidate("pages", name, made)?);
    }
    all.push(Candidate::new("pagemap", move || {
        let entries = map.read()?.iter();
        Ok(entries.map(|entry| entry & !FLAGS).sum())
    }));
    let case = Case {
        group: "pages",
        items: bytes / PAGE,
        item: "page",
        each: true,
    };
    bench.compare(case, all)
}

fn library<'a>(
    name: &'static str,
    ring: &TestRing,
    backend: Backend,
    right: &[u64],
) -> Result<Candidate<'a>> {
    let mut pages = BufPages::options().backend(backend).attach(ring)?;
    let seen = pages.segments(0)?;
    let frames = seen.iter().flat_map(Segment::pfns);
    if !frames.eq(right.iter().map(|entry| entry & !FLAGS)) {
        return Err("other pages than /proc/PID/pagemap has".into());
    }
    Ok(Candidate::new(name, move || {
        let segments = pages.segments(0)?;
        Ok(segments.iter().filter_map(Segment::pfn).sum())
    }))
}

/// The entries of /proc/self/pagemap for a buffer, by one read(2).
struct Pagemap {
    file: std::fs::File,
    offset: u64,
    entries: Vec<u64>,
}

impl Pagemap {
    fn open(buf: Registered) -> Result<Self> {
        Ok(Self {
            file: std::fs::File::open(format!("/proc/{}/pagemap", id()))?,
            offset: buf.addr / PAGE as u64 * 8,
            entries: vec![0; buf.len as usize / PAGE],
        })
    }

    fn read(&mut self) -> Result<&[u64]> {
        use zerocopy::IntoBytes as _;
        let bytes = self.entries.as_mut_bytes();
        std::os::unix::fs::FileExt::read_exact_at(&self.file, bytes, self.offset)?;
        Ok(&self.entries)
    }
}
