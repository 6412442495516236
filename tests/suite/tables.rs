//! Tables of every size and shape, read in every way.

use std::process;

use uring_bpf_iter::{RegisteredBufs, UringBufIter};
use uring_testkit::{page_size, BufSpec, RingBuilder, TestRing};

use super::oracle::{assert_places, assert_reads, assert_ring, attach, listed, Way};
use super::{done, Outcome};

trials![
    no_table,
    one_buffer,
    a_thousand_buffers,
    the_largest_table,
    sparse_tables,
    a_table_of_nothing_but_empty_slots,
    unaligned_and_one_byte,
    tags_are_exact,
    cloned_tables_share_references,
    memory_that_is_no_longer_mapped,
    one_iterator_sees_every_change,
    unregistered_is_empty_and_not_gone,
    locked_reads_need_6_13,
];

fn ring() -> TestRing {
    RingBuilder::new(8).build().expect("ring")
}

fn check(ring: &TestRing) {
    assert_ring(process::id(), ring.raw_fd(), ring.expected());
}

fn of_size(bufs: usize) -> Outcome {
    let mut ring = ring();
    ring.register(&vec![BufSpec::new(page_size()); bufs])
        .expect("register");
    assert_eq!(ring.expected().len(), bufs);
    check(&ring);
    done()
}

fn no_table() -> Outcome {
    check(&ring());
    done()
}

fn one_buffer() -> Outcome {
    of_size(1)
}

fn a_thousand_buffers() -> Outcome {
    of_size(1000)
}

/// IORING_MAX_REG_BUFFERS.
fn the_largest_table() -> Outcome {
    of_size(16384)
}

fn sparse_tables() -> Outcome {
    for slots in [1, 2, 63, 64, 65, 511, 1000, 16384] {
        let mut ring = ring();
        ring.register_sparse(slots).expect("sparse");
        let filled = [0, slots / 3, slots / 2, slots - 1];
        for (n, slot) in filled.into_iter().enumerate() {
            let spec = BufSpec::new(100 * (n + 1)).at(7 * n).tagged(n as u64);
            ring.update(slot, &[Some(spec)]).expect("update");
        }
        check(&ring);
        // A slot that was filled and is empty again.
        ring.update(slots / 2, &[None]).expect("update");
        assert!(ring.expected()[slots as usize / 2].is_none());
        check(&ring);
    }
    done()
}

fn a_table_of_nothing_but_empty_slots() -> Outcome {
    let mut ring = ring();
    ring.register_sparse(777).expect("sparse");
    check(&ring);
    let mut iter = UringBufIter::attach(&ring).expect("attach");
    let bufs = iter.snapshot().expect("snapshot");
    assert_eq!((bufs.len(), bufs.filled().count()), (777, 0));
    assert_eq!(bufs.pinned_bytes(), 0);
    done()
}

/// Each against the oracle's own arithmetic of pages.
fn unaligned_and_one_byte() -> Outcome {
    let page = page_size();
    let specs = [
        BufSpec::new(1),
        BufSpec::new(1).at(page - 1),
        BufSpec::new(2).at(page - 1),
        BufSpec::new(page).at(1),
        BufSpec::new(page - 1).at(1),
        BufSpec::new(page + 1),
        BufSpec::new(3 * page).at(513),
        BufSpec::new(100 * page + 17).at(page - 17),
    ];
    let mut ring = ring();
    ring.register(&specs).expect("register");
    check(&ring);
    let mut iter = UringBufIter::attach(&ring).expect("attach");
    let pages: Vec<u64> = iter
        .snapshot()
        .expect("snapshot")
        .iter()
        .map(|buf| buf.nr_pages())
        .collect();
    assert_eq!(pages, [1, 1, 2, 2, 1, 2, 4, 101]);
    done()
}

fn tags_are_exact() -> Outcome {
    let tags = [0, 1, u64::MAX, 1 << 63, 0xDEAD_BEEF, u64::from(u32::MAX)];
    let specs = tags.map(|tag| BufSpec::new(64).tagged(tag));
    let mut ring = ring();
    ring.register_tagged(&specs).expect("register");
    check(&ring);
    done()
}

fn cloned_tables_share_references() -> Outcome {
    let mut source = ring();
    source
        .register_tagged(&[BufSpec::new(5000).at(9).tagged(7), BufSpec::new(1)])
        .expect("register");
    let mut clone = ring();
    if let Err(e) = clone.clone_buffers_from(&source) {
        return super::results::skip(format!("IORING_REGISTER_CLONE_BUFFERS: {e}"));
    }
    let refs = |ring: &TestRing, want: u32| {
        for way in Way::all() {
            let mut iter = attach(way, process::id(), ring.raw_fd());
            let bufs = way.snapshot(&mut iter).expect("snapshot");
            assert_places(way, &bufs, ring.expected());
            let want = (way != Way::Fdinfo).then_some(want);
            for buf in bufs.filled() {
                assert_eq!(buf.refs(), want, "{way:?} {buf:?}");
            }
        }
    };
    refs(&source, 2);
    refs(&clone, 2);
    clone.unregister().expect("unregister");
    refs(&source, 1);
    done()
}

fn memory_that_is_no_longer_mapped() -> Outcome {
    let mut ring = ring();
    ring.register(&[BufSpec::new(3 * page_size()), BufSpec::new(10)])
        .expect("register");
    ring.drop_mapping();
    check(&ring);
    done()
}

fn one_iterator_sees_every_change() -> Outcome {
    let mut ring = ring();
    for way in Way::all() {
        let mut iter = attach(way, process::id(), ring.raw_fd());
        assert_reads(way, &mut iter, ring.expected());
        ring.register_sparse(4).expect("sparse");
        assert_reads(way, &mut iter, ring.expected());
        for n in 0..8 {
            let spec = BufSpec::new(50 + n).at(n).tagged(n as u64 + 1);
            ring.update(n as u32 % 4, &[Some(spec)]).expect("update");
            assert_reads(way, &mut iter, ring.expected());
        }
        ring.unregister().expect("unregister");
        // A shorter table after a longer one, and the other way round.
        for len in [1, 300, 2] {
            ring.register(&vec![BufSpec::new(8); len])
                .expect("register");
            assert_reads(way, &mut iter, ring.expected());
            ring.unregister().expect("unregister");
        }
    }
    done()
}

fn unregistered_is_empty_and_not_gone() -> Outcome {
    let mut ring = ring();
    let fd = ring.raw_fd();
    for way in Way::all() {
        ring.register(&[BufSpec::new(4096); 3]).expect("register");
        let mut iter = attach(way, process::id(), fd);
        assert_reads(way, &mut iter, ring.expected());
        ring.unregister().expect("unregister");
        assert_eq!(listed(process::id(), fd), []);
        assert_reads(way, &mut iter, &[]);
    }
    done()
}

fn locked_reads_need_6_13() -> Outcome {
    let ring = ring();
    let mut iter = attach(Way::Locked, process::id(), ring.raw_fd());
    let read = Way::Locked.snapshot(&mut iter);
    match super::oracle::kernel() >= (6, 13) {
        true => drop(read.expect("6.13 and later can")),
        false => assert!(
            matches!(read, Err(uring_bpf_iter::Error::Unsupported { .. })),
            "{read:?}"
        ),
    }
    done()
}
