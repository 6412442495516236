//! The two troublemakers do what they claim: LockHolder keeps uring_lock, and
//! Flapper's table is always A or B to one who holds that lock.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd};
use std::process;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use uring_testkit::{fdinfo, BufSpec, Flap, Flapper, LockHolder, RingBuilder, TestRing, View};

fn ring_of(slots: u32) -> TestRing {
    RingBuilder::new(8)
        .cq_entries(2 * slots)
        .build()
        .expect("ring")
}

/// State of a thread of this process, as in /proc: 'S', 'D', ...
fn thread_state(name: &str) -> Option<char> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("tasks");
    tasks.flatten().find_map(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let (head, rest) = stat.rsplit_once(") ")?;
        head.ends_with(&format!("({name}"))
            .then(|| rest.chars().next())?
    })
}

#[test]
fn a_held_lock_blocks_every_registration_until_release() {
    let mut ring = ring_of(8);
    ring.register(&[BufSpec::new(4096); 3]).expect("register");
    let fd = ring.raw_fd();
    let listed = || {
        fdinfo::user_bufs(process::id(), fd)
            .expect("fdinfo")
            .map(|bufs| bufs.len())
    };
    assert_eq!(listed(), Some(3));

    let holder = LockHolder::hold(&ring).expect("hold");
    // fdinfo only tries the lock: a list left out is the kernel's word for it.
    assert_eq!(listed(), None);

    let (done, waits) = mpsc::channel();
    let blocked = thread::Builder::new()
        .name("blocked".into())
        .spawn(move || {
            let result = ring.unregister();
            done.send(()).expect("the test waits");
            (ring, result)
        });
    let blocked = blocked.expect("thread");
    let silence = waits.recv_timeout(Duration::from_millis(300));
    assert_eq!(
        silence,
        Err(mpsc::RecvTimeoutError::Timeout),
        "it should wait for the lock"
    );
    assert_eq!(
        thread_state("blocked"),
        Some('D'),
        "uninterruptible, on the mutex"
    );
    assert_eq!(listed(), None, "still held");

    holder.release().expect("release");
    waits
        .recv_timeout(Duration::from_secs(5))
        .expect("it should go on");
    let (ring, result) = blocked.join().expect("no panic");
    result.expect("unregister");
    assert_eq!(
        fdinfo::user_bufs(process::id(), ring.raw_fd()).unwrap(),
        Some(vec![])
    );
}

#[test]
fn holding_changes_nothing_and_drop_releases() {
    let mut ring = ring_of(8);
    ring.register_sparse(4).expect("sparse");
    for _ in 0..20 {
        let _holder = LockHolder::hold(&ring).expect("hold");
        assert_eq!(
            fdinfo::user_bufs(process::id(), ring.raw_fd()).unwrap(),
            None
        );
    }
    let seen = fdinfo::user_bufs(process::id(), ring.raw_fd()).unwrap();
    assert_eq!(seen, Some(vec![None; 4]));
    ring.update(0, &[Some(BufSpec::new(1))])
        .expect("the lock is free");
}

#[test]
fn a_lock_is_held_once_and_not_by_strangers() {
    let issuer_only = RingBuilder::new(8).defer_taskrun().build().expect("ring");
    let refused = LockHolder::hold(&issuer_only).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EEXIST));
    let no_ring = LockHolder::hold(std::fs::File::open("/dev/null").unwrap()).unwrap_err();
    assert_eq!(no_ring.raw_os_error(), Some(libc::EOPNOTSUPP));
}

/// Views taken under the lock (fdinfo), until both states were seen often.
fn watch(flapper: &Flapper) -> HashMap<View, u32> {
    let (fd, pid) = (flapper.as_fd().as_raw_fd(), process::id());
    let mut views = HashMap::new();
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        let enough = |view| views.get(&view).copied().unwrap_or(0) >= 5;
        if enough(View::A) && enough(View::B) {
            break;
        }
        assert!(flapper.is_running());
        // Left out: the flapper was at it.
        let Some(bufs) = fdinfo::user_bufs(pid, fd).expect("fdinfo") else {
            continue;
        };
        *views
            .entry(flapper.states().view_ranges(bufs.into_iter().flatten()))
            .or_default() += 1;
    }
    views
}

fn flaps_whole(how: Flap, slots: usize) -> HashMap<View, u32> {
    let flapper = Flapper::start(ring_of(slots as u32), slots, how).expect("start");
    flapper.rest(Duration::from_micros(40));
    let began = Instant::now();
    let views = watch(&flapper);
    let rate = flapper.flips() as f64 / began.elapsed().as_secs_f64();
    println!("{how:?}, {slots} slots: {rate:.0} flips/s, {views:?}");
    assert!(views.get(&View::A).is_some_and(|n| *n >= 5), "{views:?}");
    assert!(views.get(&View::B).is_some_and(|n| *n >= 5), "{views:?}");
    assert!(
        !views.contains_key(&View::Torn),
        "torn under the lock: {views:?}"
    );

    let before = flapper.flips();
    thread::sleep(Duration::from_millis(50));
    assert!(flapper.flips() > before, "it does not rest");
    let ring = flapper.stop().expect("stop");
    let seen = fdinfo::user_bufs(process::id(), ring.raw_fd())
        .unwrap()
        .expect("quiet now");
    let expected: Vec<_> = ring
        .expected()
        .iter()
        .map(|s| s.map(|b| (b.addr, b.len)))
        .collect();
    assert_eq!(seen, expected, "the oracle is true again");
    views
}

#[test]
fn updates_are_whole_under_the_lock() {
    // Texts of less than a page: for a longer one the kernel starts over, and
    // each time has to get the lock.
    for slots in [16, 100] {
        let views = flaps_whole(Flap::Update, slots);
        assert!(
            !views.contains_key(&View::Empty),
            "an update leaves no gap: {views:?}"
        );
    }
}

#[test]
fn reregistrations_are_whole_under_the_lock() {
    flaps_whole(Flap::Reregister, 64);
}

#[test]
fn states_have_nothing_in_common() {
    let flapper = Flapper::start(ring_of(64), 64, Flap::Update).expect("start");
    let states = flapper.states();
    let both = || states.a.iter().chain(&states.b);
    let distinct = |key: fn(&uring_testkit::Registered) -> u64| {
        both()
            .map(key)
            .collect::<std::collections::HashSet<_>>()
            .len()
    };
    assert_eq!((distinct(|b| b.addr), distinct(|b| b.tag)), (128, 128));
    assert!(states.a.iter().zip(&states.b).all(|(a, b)| a.len != b.len));
}

#[test]
fn a_flapper_on_a_strangers_ring_says_why_it_ended() {
    let ring = RingBuilder::new(8).defer_taskrun().build().expect("ring");
    let flapper = Flapper::start(ring, 4, Flap::Update).expect("start");
    let end = Instant::now() + Duration::from_secs(5);
    while flapper.is_running() {
        assert!(Instant::now() < end, "refused by its first flip");
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(flapper.flips(), 0);
    assert_eq!(
        flapper.stop().unwrap_err().raw_os_error(),
        Some(libc::EEXIST)
    );
}

#[test]
fn a_flapper_survives_a_small_completion_queue() {
    let ring = RingBuilder::new(1).build().expect("ring");
    let flapper = Flapper::start(ring, 64, Flap::Update).expect("start");
    while flapper.flips() < 100 {
        assert!(flapper.is_running());
        thread::sleep(Duration::from_millis(1));
    }
    flapper.stop().expect("stop");
}
