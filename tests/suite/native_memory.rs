//! Many rounds of all that there is to make and to close, and whether the
//! kernel has its memory back: by its slabs, by kmemleak, by the pinned pages.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use uring_testkit::{
    grown_slabs, has_kasan, has_kmemleak, leaks, mount_debugfs, slab_objects, BufSpec, EpollSet,
    Faults, IterProgram, RingBuilder,
};

use super::native::{program, read, Pins, RING_TARGETS};
use super::{done, Outcome};

native_trials![Alone: nothing_is_left_of_many_rounds];

fn nothing_is_left_of_many_rounds() -> Outcome {
    let _mounted = mount_debugfs();
    let kasan = has_kasan()?;
    // Slabs tell what is kept by its number, kmemleak by the object.
    let rounds = if kasan { 100 } else { 1000 };
    let ring_programs = RING_TARGETS.map(program);
    let epoll = program("epoll");
    // What is made once: caches, per-CPU lists.
    for n in 0..rounds / 10 {
        round(ring_programs, epoll, n);
    }
    let pins = Pins::now();
    let before = slab_objects()?;
    let start = Instant::now();
    for n in 0..rounds {
        round(ring_programs, epoll, n);
    }
    println!("{rounds} rounds in {:.1?}", start.elapsed());
    pins.assert_back();
    if let Ok(faults) = Faults::new() {
        super::native_faults::all(&faults);
    }
    if !kasan {
        assert_slabs(&before, rounds / 2);
    }
    if has_kmemleak() {
        let report = leaks(std::process::id())?;
        assert!(report.is_empty(), "{report}");
    }
    assert!(
        !kasan || has_kmemleak(),
        "neither slabs nor kmemleak were looked at"
    );
    done()
}

/// One object kept a round would be twice the slack; what is freed later (RCU,
/// work queues) is waited for.
fn assert_slabs(before: &BTreeMap<String, u64>, slack: u64) {
    let start = Instant::now();
    loop {
        let grown = grown_slabs(before, slack).expect("slabinfo");
        if grown.is_empty() {
            return;
        }
        assert!(start.elapsed() < super::native::SOON, "kept: {grown:?}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// A ring and a set, links and sessions of both in all states, some of them in
/// the ring's own table; closed in one order or in the other.
fn round(ring_programs: [&IterProgram; 2], epoll: &IterProgram, n: u64) {
    let mut ring = RingBuilder::new(4).build().expect("ring");
    ring.register_sparse(4).expect("register");
    ring.update(1, &[Some(BufSpec::new(100))]).expect("update");
    ring.register_files_sparse(8).expect("register");
    let mut set = EpollSet::new().expect("epoll");
    set.add(&ring, 1, n).expect("add");
    let (mut links, mut sessions) = (Vec::new(), Vec::new());
    for program in ring_programs {
        links.push(program.attach(&ring).expect("attach"));
    }
    links.push(epoll.attach(&set).expect("attach"));
    for (link, bytes) in links.iter().zip([8, 0, 64]) {
        let mut session = link.open().expect("session");
        if bytes > 0 {
            read(&mut session, &mut vec![0; bytes]);
        }
        sessions.push(session);
    }
    let slots = [
        Some((links[0].as_fd(), 0)),
        Some((links[1].as_fd(), 0)),
        Some((sessions[0].as_fd(), 0)),
        Some((set.as_fd(), 0)),
    ];
    ring.update_files(2, &slots).expect("update");
    if n % 2 == 0 {
        drop((ring, set));
        drop((links, sessions));
    } else {
        drop((links, sessions));
        drop((set, ring));
    }
}
