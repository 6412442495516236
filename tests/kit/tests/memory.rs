//! What the kernel says of its memory, of faults and of iterators: as far as a
//! stock kernel lets it be tried.

use std::io::ErrorKind;
use std::time::Duration;

use uring_testkit::{
    grown_slabs, has_iterator, has_kasan, page_frames, page_size, pinned_pages, settled_pins,
    slab_objects, BufSpec, Faults, Injected, IterProgram, RingBuilder,
};

/// Others use the machine too: one undisturbed look of many is enough.
#[track_caller]
fn sometime<T: PartialEq + std::fmt::Debug>(want: T, look: impl Fn() -> T) {
    let mut last = None;
    for _ in 0..50 {
        let seen = look();
        if seen == want {
            return;
        }
        last = Some(seen);
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("never {want:?}, last {last:?}");
}

#[test]
fn registered_pages_are_pinned() {
    sometime((777, 0), || {
        let before = pinned_pages().expect("pins");
        let mut ring = RingBuilder::new(8).build().expect("ring");
        ring.register(&vec![BufSpec::new(page_size()); 777])
            .expect("register");
        let during = pinned_pages().expect("pins");
        drop(ring);
        let after = settled_pins(before, Duration::from_secs(2)).expect("pins");
        (during - before, after - before)
    });
}

#[test]
fn registered_pages_have_frames_and_no_two_the_same() {
    let mut ring = RingBuilder::new(8).build().expect("ring");
    ring.register(&[BufSpec::new(3 * page_size()).at(100), BufSpec::new(1)])
        .expect("register");
    let mut all = Vec::new();
    for buf in ring.expected().iter().flatten() {
        let frames = page_frames(buf.addr, buf.len).expect("pagemap");
        assert!(frames.iter().all(Option::is_some), "pinned: {frames:?}");
        all.extend(frames);
    }
    assert_eq!(all.len(), 5);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 5);
    assert_eq!(
        page_frames(4096, 1).expect("pagemap"),
        [None],
        "nothing is there"
    );
    assert_eq!(
        page_frames(4096, 0).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

#[test]
fn slabs_count_what_is_kept() {
    let before = slab_objects().expect("slabinfo");
    assert!(
        before.keys().any(|name| name.starts_with("kmalloc-")),
        "{before:?}"
    );
    let kept: Vec<_> = (0..2000)
        .map(|_| std::fs::File::open("/dev/null").expect("open"))
        .collect();
    let grown = grown_slabs(&before, 1000).expect("slabinfo");
    assert!(grown.contains_key("filp"), "{grown:?}");
    drop(kept);
    if has_kasan().expect("kallsyms") {
        println!("NOT TESTED: KASAN keeps what is freed");
        return;
    }
    sometime(false, || {
        grown_slabs(&before, 1000)
            .expect("slabinfo")
            .contains_key("filp")
    });
}

/// On a kernel with fault injection a pipe, and on another the reason.
#[test]
fn faults_or_a_reason() {
    let faults = match Faults::new() {
        Ok(faults) => faults,
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::Unsupported);
            println!("NOT TESTED faults: {e}");
            return;
        }
    };
    let ring = || RingBuilder::new(8).build().map(drop);
    let (first, injected) = faults.fail_nth(1, ring).expect("fail-nth");
    assert_eq!(injected, Injected::Yes);
    assert_eq!(first.unwrap_err().raw_os_error(), Some(libc::ENOMEM));
    let (all, injected) = faults.fail_nth(100_000, ring).expect("fail-nth");
    assert_eq!(injected, Injected::No);
    all.expect("nothing failed");
}

#[test]
fn iterators_by_hand_or_a_reason() {
    assert!(has_iterator("task_file").expect("BTF"));
    assert!(!has_iterator("no_such_thing").expect("BTF"));
    let missing = IterProgram::load("no_such_thing").unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Unsupported);
    for target in ["io_uring_buf", "io_uring_file", "epoll"] {
        if !has_iterator(target).expect("BTF") {
            println!("NOT TESTED: this kernel has no iterator target {target}");
            continue;
        }
        IterProgram::load(target).unwrap_or_else(|e| panic!("{target}: {e}"));
    }
    let Ok(program) = IterProgram::load("io_uring_buf") else {
        return;
    };
    let mut ring = RingBuilder::new(8).build().expect("ring");
    ring.register(&[BufSpec::new(1), BufSpec::new(2)])
        .expect("register");
    let link = program.attach(&ring).expect("attach");
    let info = link.info().expect("info");
    assert_eq!(
        (info.target.as_str(), Some(info.words[0])),
        ("io_uring_buf", ring.inode())
    );
    for step in [1, 8, 4096] {
        let all = link.open().expect("session").read_all(step);
        assert_eq!(all.expect("read"), [0, 1, 2]);
    }
    drop(ring);
    assert_eq!(link.open().unwrap_err().raw_os_error(), Some(libc::ENXIO));
}

/// The program of the other targets, on one that every kernel has, is accepted
/// by the verifier; link infos that make no sense are not.
#[test]
fn the_kernel_judges_link_infos() {
    let program = IterProgram::load("task_file").unwrap_or_else(|e| panic!("{e}"));
    let pointer_alone = program.attach_by(Some(&[0; 16]), Some(0)).unwrap_err();
    assert_eq!(pointer_alone.raw_os_error(), Some(libc::EINVAL));
    let length_alone = program.attach_by(None, Some(4)).unwrap_err();
    assert_eq!(length_alone.raw_os_error(), Some(libc::EINVAL));
    let mut long = [0; 64];
    long[63] = 1;
    let long = program.attach_by(Some(&long), None).unwrap_err();
    assert_eq!(long.raw_os_error(), Some(libc::E2BIG));
    program.attach_by(None, None).expect("all tasks");
}

/// As the native targets do, that of maps wants to be told which.
#[test]
fn an_iterator_of_one_object_needs_a_link_info() {
    match IterProgram::load("bpf_map_elem") {
        Ok(program) => {
            let none = program.attach_by(None, None).unwrap_err();
            assert_eq!(none.raw_os_error(), Some(libc::EBADF));
        }
        // Some kernels are built to refuse programs for the elements of maps.
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            println!("NOT TESTED: this kernel refuses programs for bpf_map_elem: {e}");
        }
        Err(e) => panic!("{e}"),
    }
}
