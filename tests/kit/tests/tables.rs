//! The kit's oracle against the kernel's own words: every kind of ring and of
//! table, compared with /proc/self/fdinfo.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::Duration;

use uring_testkit::{
    ensure_huge_pages, fdinfo, page_size, BufSpec, Registered, RingBuilder, TestRing,
};

/// fdinfo of a ring, read until the kernel got uring_lock (a waking SQPOLL
/// thread may have it).
fn kernel_says(ring: &TestRing) -> fdinfo::UserBufs {
    for _ in 0..1000 {
        if let Some(bufs) = fdinfo::user_bufs(std::process::id(), ring.raw_fd()).expect("fdinfo") {
            return bufs;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("uring_lock was taken for a second");
}

#[track_caller]
fn check(ring: &TestRing) {
    let range = |slot: &Option<Registered>| slot.map(|buf| (buf.addr, buf.len));
    let expected: Vec<_> = ring.expected().iter().map(range).collect();
    assert_eq!(kernel_says(ring), expected);
}

fn plain() -> TestRing {
    RingBuilder::new(8).build().expect("a plain ring")
}

const PAGE: BufSpec = BufSpec::new(4096);

#[test]
fn every_setup_has_its_flags_and_its_table() {
    let base = RingBuilder::new(8);
    let idle = Duration::from_millis(5);
    let kinds = [
        ("plain", base, 0),
        ("IOPOLL", base.iopoll(), 1 << 0),
        ("SQPOLL", base.sqpoll(idle), 1 << 1),
        ("CQSIZE", base.cq_entries(64), 1 << 3),
        ("R_DISABLED", base.disabled(), 1 << 6),
        ("COOP_TASKRUN", base.coop_taskrun(), 1 << 8),
        ("SQE128", base.sqe128(), 1 << 10),
        ("CQE32", base.cqe32(), 1 << 11),
        ("SINGLE_ISSUER", base.single_issuer(), 1 << 12),
        ("DEFER_TASKRUN", base.defer_taskrun(), 3 << 12),
    ];
    for (name, builder, flags) in kinds {
        let mut ring = builder.build().unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(ring.flags(), flags, "{name}");
        assert_eq!(ring.sq_entries(), 8, "{name}");
        assert_eq!(
            ring.cq_entries(),
            if name == "CQSIZE" { 64 } else { 16 },
            "{name}"
        );
        check(&ring);
        ring.register(&[PAGE; 3])
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        check(&ring);
        ring.unregister().unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(ring.expected().is_empty());
        check(&ring);
    }
}

#[test]
fn a_disabled_ring_is_enabled_once() {
    let ring = RingBuilder::new(8)
        .disabled()
        .defer_taskrun()
        .build()
        .expect("ring");
    ring.enable().expect("enable");
    assert_eq!(
        ring.enable().unwrap_err().raw_os_error(),
        Some(libc::EBADFD)
    );
}

#[test]
fn buffers_of_all_shapes() {
    let mut ring = plain();
    let shapes = [
        BufSpec::new(1),
        BufSpec::new(1000).at(100),
        BufSpec::new(1000).at(3600),
        BufSpec::new(1 << 20),
        BufSpec::new(4096).at(4095),
    ];
    ring.register(&shapes).expect("register");
    check(&ring);
    for (shape, slot) in shapes.iter().zip(ring.expected()) {
        let slot = slot.expect("filled");
        assert_eq!(slot.addr as usize % page_size(), shape.offset_in_page);
        assert_eq!(slot.len as usize, shape.len);
    }
    let again = ring.register(&[PAGE]).unwrap_err();
    assert_eq!(again.raw_os_error(), Some(libc::EBUSY));
    check(&ring);
}

#[test]
fn a_full_table_of_16384() {
    let mut ring = plain();
    ring.register(&vec![PAGE; 16_384]).expect("register");
    check(&ring);
}

#[test]
fn tags_come_back_when_a_slot_changes() {
    let mut ring = plain();
    let tagged: Vec<_> = (0..4).map(|i| BufSpec::new(512).tagged(100 + i)).collect();
    assert_eq!(
        ring.register(&tagged).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    ring.register_tagged(&tagged).expect("register");
    check(&ring);
    assert_eq!(ring.drain(), 0);
    ring.update(1, &[Some(PAGE.tagged(7)), None])
        .expect("update");
    check(&ring);
    assert_eq!(ring.drain(), 2, "one completion for each tag that left");
    let tags: Vec<_> = ring
        .expected()
        .iter()
        .map(|slot| slot.map(|buf| buf.tag))
        .collect();
    assert_eq!(tags, [Some(100), Some(7), None, Some(103)]);
}

#[test]
fn completions_that_overflow_are_drained_too() {
    let mut ring = RingBuilder::new(1).build().expect("ring");
    assert_eq!(ring.cq_entries(), 2);
    let tagged: Vec<_> = (1..=50).map(|tag| PAGE.tagged(tag)).collect();
    ring.register_tagged(&tagged).expect("register");
    // Up to 6.12, unregistering the table posts no tags.
    ring.update(0, &[None; 50]).expect("update");
    assert_eq!(ring.drain(), 50);
}

#[test]
fn a_sparse_table_fills_and_empties() {
    let mut ring = plain();
    ring.register_sparse(8).expect("sparse");
    check(&ring);
    ring.update(
        2,
        &[Some(PAGE), None, Some(BufSpec::new(9).at(9).tagged(9))],
    )
    .expect("fill");
    check(&ring);
    ring.update(2, &[None]).expect("empty");
    check(&ring);
    assert_eq!(ring.expected().iter().flatten().count(), 1);
    let beyond = ring.update(8, &[Some(PAGE)]).unwrap_err();
    assert_eq!(beyond.raw_os_error(), Some(libc::EINVAL));
    check(&ring);
}

#[test]
fn an_update_that_stops_half_way_is_remembered() {
    let mut ring = plain();
    ring.register_sparse(4).expect("sparse");
    // The kernel refuses a buffer above 1 GiB.
    let huge = BufSpec::new((1 << 30) + 1);
    ring.update(0, &[Some(PAGE), Some(huge), Some(PAGE)])
        .unwrap_err();
    assert_eq!(ring.expected().iter().flatten().count(), 1);
    check(&ring);
}

// That the memory is really unmapped is shown on a workload: here, another
// test's thread may map the same address at once.
#[test]
fn buffers_outlive_their_mapping() {
    let mut ring = plain();
    ring.register(&[PAGE; 5]).expect("register");
    ring.drop_mapping();
    assert_eq!(ring.expected().len(), 5);
    check(&ring);
}

#[test]
fn clones_share_without_tags() {
    let mut source = plain();
    source
        .register_tagged(&[PAGE.tagged(5), BufSpec::new(99).at(1)])
        .expect("register");
    let mut clone = plain();
    clone.clone_buffers_from(&source).expect("clone");
    check(&clone);
    assert_eq!(clone.expected()[0].map(|buf| buf.tag), Some(0));
    clone.unregister().expect("unregister");
    assert_eq!(clone.drain(), 0, "a clone posts no tag");
}

#[test]
fn a_ring_without_descriptor_is_seen_through_a_clone() {
    let mut ring = RingBuilder::new(64).no_fd().build().expect("ring");
    assert!(ring.fd().is_none() && ring.inode().is_none());
    assert!(ring.registered_index().is_some());
    assert_eq!(ring.flags(), 3 << 14);
    ring.register(&[PAGE, BufSpec::new(77).at(7)])
        .expect("register");
    // It has no fdinfo, but a clone has.
    let mut clone = plain();
    clone.clone_buffers_from(&ring).expect("clone");
    assert_eq!(clone.expected(), ring.expected());
    check(&clone);

    let stranger = thread::scope(|s| s.spawn(|| ring.enable()).join().unwrap());
    assert_eq!(stranger.unwrap_err().kind(), ErrorKind::InvalidInput);
    ring.update(1, &[None]).expect("update");
    ring.unregister().expect("unregister");
}

#[test]
fn a_registered_place_alone_keeps_the_ring() {
    let mut ring = plain();
    ring.register(&[PAGE, BufSpec::new(77).at(7)])
        .expect("register");
    ring.close_fd_keep_registered().expect("close");
    assert!(ring.fd().is_none() && ring.inode().is_some());
    assert!(ring.registered_index().is_some());
    let mut clone = plain();
    clone.clone_buffers_from(&ring).expect("clone");
    assert_eq!(clone.expected(), ring.expected());
    check(&clone);
}

#[test]
fn registered_indices_are_given_back() {
    // 16 is IO_RINGFD_REG_MAX.
    for i in 0..64 {
        RingBuilder::new(1)
            .no_fd()
            .build()
            .unwrap_or_else(|e| panic!("ring {i}: {e}"));
    }
}

#[test]
fn a_mapping_alone_keeps_the_ring() {
    let mut ring = plain();
    ring.register(&[PAGE; 2]).expect("register");
    let (fd, inode) = (ring.raw_fd(), ring.inode().expect("inode"));
    let shared = ring.as_fd().try_clone_to_owned().expect("dup");
    ring.close_fd_keep_mapping();
    assert!(ring.fd().is_none());
    assert_ne!(fd, shared.as_raw_fd());
    drop(shared);
    let maps = fs::read_to_string("/proc/self/maps").expect("maps");
    let line = format!("{:x}-", ring.mapping_addr());
    let line = maps
        .lines()
        .find(|l| l.starts_with(&line))
        .expect("still mapped");
    assert!(line.contains("anon_inode:[io_uring]"), "{line}");
    assert!(line.contains(&format!(" {inode} ")), "{line}");
    assert_eq!(
        ring.unregister().unwrap_err().raw_os_error(),
        Some(libc::EBADF)
    );
    assert_eq!(ring.expected().len(), 2);
}

#[test]
fn rings_have_inodes_of_their_own() {
    let (a, b) = (plain(), plain());
    assert!(a.inode().is_some());
    assert_ne!(a.inode(), b.inode());
}

#[test]
fn files_are_counted() {
    let null = File::open("/dev/null").expect("null");
    let mut ring = plain();
    ring.register_files(&[null.as_fd(), null.as_fd()])
        .expect("files");
    let says = || fs::read_to_string(format!("/proc/self/fdinfo/{}", ring.raw_fd())).unwrap();
    assert!(says().contains("UserFiles:\t2\n"));
    assert_eq!(ring.nr_files(), 2);
    ring.unregister_files().expect("unregister");
    ring.register_files_sparse(5).expect("sparse");
    assert_eq!(ring.nr_files(), 5);
}

#[test]
fn huge_pages_or_a_clear_error() {
    let spec = BufSpec::new(3 << 20).at(64).in_huge_pages();
    let mut ring = plain();
    let impossible = BufSpec::new(1 << 46).in_huge_pages();
    let error = ring.register(&[impossible]).unwrap_err().to_string();
    assert!(error.contains("huge pages of"), "{error}");
    assert!(ring.expected().is_empty());

    assert!(
        ensure_huge_pages(2).expect("nr_hugepages") >= 2,
        "no memory for two huge pages"
    );
    ring.register(&[spec, PAGE]).expect("register");
    check(&ring);
    let slot = ring.expected()[0].expect("filled");
    assert_eq!(slot.addr % (2 << 20), 64);
}
