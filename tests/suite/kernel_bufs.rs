//! Buffers of the kernel's own: no user address, and all the rest.

use std::io;
use std::process;

use uring_bpf_iter::{BufPages, Segment};
use uring_testkit::{page_frames, page_size, KernelBuf};

use super::oracle::{attach, listed, Way};
use super::results::skip;
use super::{done, Outcome};

trials![a_request_of_a_block_device];

const PAGES: usize = 5;
const SLOTS: usize = 4;

/// Its pages are those that somebody reads the block device into: by pagemap
/// of the reader, they have numbers.
fn a_request_of_a_block_device() -> Outcome {
    let mut kernel = match KernelBuf::new(SLOTS as u32, 2, PAGES) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return skip(error),
        kernel => kernel?,
    };
    let (at, size) = (kernel.slot() as usize, kernel.size() as u64);
    let fd = kernel.ring().raw_fd();
    let frames = page_frames(kernel.mapped_at(), size)?;
    let frames: Vec<u64> = frames.into_iter().flatten().collect();
    assert_eq!(frames.len(), PAGES, "the reader's pages are there");
    assert_eq!(listed(process::id(), fd)[at], Some((0, size)), "fdinfo");

    for way in Way::all() {
        let mut iter = attach(way, process::id(), fd);
        let bufs = way.snapshot(&mut iter)?;
        assert_eq!(bufs.len(), SLOTS, "{way:?}");
        for (index, buf) in bufs.iter().enumerate() {
            assert_eq!(buf.is_empty_slot(), index != at, "{way:?}: {buf:?}");
        }
        let buf = &bufs[at];
        assert_eq!((buf.addr(), buf.len()), (0, size), "{way:?}: {buf:?}");
        let origin = (way != Way::Fdinfo).then_some(true);
        assert_eq!(buf.is_kernel(), origin, "{way:?}: {buf:?}");
    }
    for way in Way::all().filter(|way| *way != Way::Fdinfo) {
        let options = BufPages::options().backend(way.backend());
        let mut pages = options.attach(kernel.ring())?;
        let segments = pages.segments(at as u64)?;
        let shown: Vec<u64> = segments.iter().flat_map(Segment::pfns).collect();
        assert_eq!(shown, frames, "{way:?}");
        let bytes: u64 = segments.iter().map(|s| u64::from(s.len())).sum();
        assert_eq!(bytes, size, "{way:?}");
    }

    kernel.answer()?;
    for way in Way::all() {
        let mut iter = attach(way, process::id(), fd);
        let bufs = way.snapshot(&mut iter)?;
        assert!(bufs.iter().all(|buf| buf.is_empty_slot()), "{way:?}");
    }
    assert_eq!(kernel.size(), PAGES * page_size());
    done()
}
