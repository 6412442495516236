//! Rings that are created, filled, emptied and closed, with links and sessions
//! of any of them in the tables of any of them, while others read: nothing is
//! seen that is not there, and at the end nothing is left.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use uring_bpf_iter::{Backend, Error, Retry, RingFinder, UringBufIter};
use uring_testkit::{BufSpec, EpollSet, IterLink, IterProgram, PipeWitness, RingBuilder, TestRing};

use super::native::{program, Pins, RING_TARGETS, SOON};
use super::oracle::{finder, Way};
use super::{done, Outcome};

native_trials![Alone: rings_come_and_go_under_their_readers];

/// So many seconds, if the variable does not say otherwise.
const SECONDS: u64 = 60;

/// Numbers that are random enough, and the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % sides
    }
}

#[derive(Default)]
struct Seen {
    rings: AtomicU64,
    whole: AtomicU64,
    busy: AtomicU64,
    gone: AtomicU64,
    snapshots: AtomicU64,
    snapshots_gone: AtomicU64,
}

struct Arena {
    programs: [&'static IterProgram; 2],
    epoll: &'static IterProgram,
    /// Links of rings that live or do not, and whether it is one of a ring.
    links: Mutex<Vec<(IterLink, bool)>>,
    stop: AtomicBool,
    seen: Seen,
}

fn rings_come_and_go_under_their_readers() -> Outcome {
    let seconds = std::env::var("URING_SUITE_STRESS").ok();
    let seconds = seconds.map_or(SECONDS, |s| s.parse().expect("seconds"));
    let pins = Pins::now();
    let arena = Arena {
        programs: RING_TARGETS.map(program),
        epoll: program("epoll"),
        links: Mutex::default(),
        stop: AtomicBool::new(false),
        seen: Seen::default(),
    };
    thread::scope(|scope| {
        let arena = &arena;
        for seed in 1..=2 {
            scope.spawn(move || stopping(arena, || owner(arena, Dice(seed), None)));
            scope.spawn(move || stopping(arena, || reader(arena, Dice(seed + 10))));
        }
        let looking = Some(Library::default());
        scope.spawn(move || stopping(arena, || owner(arena, Dice(3), looking)));
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(seconds) && !arena.stop.load(Relaxed) {
            thread::sleep(Duration::from_millis(100));
        }
        arena.stop.store(true, Relaxed);
    });
    let Seen {
        rings,
        whole,
        busy,
        gone,
        snapshots,
        snapshots_gone,
    } = &arena.seen;
    println!(
        "{seconds} s: {rings:?} rings, {whole:?} sessions to the end, {busy:?} times EDEADLK, \
         {gone:?} times ENXIO, {snapshots:?} snapshots, {snapshots_gone:?} of rings that had gone"
    );
    for (what, count) in [
        ("rings", rings),
        ("whole", whole),
        ("gone", gone),
        ("snapshots", snapshots),
    ] {
        assert!(count.load(Relaxed) > 0, "none {what}");
    }
    drop(arena);
    pins.assert_back();
    done()
}

/// Ends the others when one panics, so that all are joined.
fn stopping(arena: &Arena, body: impl FnOnce()) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    let _at_the_end = Stop(&arena.stop);
    body();
}

/// Makes a ring, does what owners do, closes it, and wants it gone. One of them
/// looks at it through the library.
fn owner(arena: &Arena, mut dice: Dice, mut library: Option<Library>) {
    while !arena.stop.load(Relaxed) {
        let builder = RingBuilder::new(8);
        let builder = match dice.roll(5) {
            0 => builder.sqpoll(Duration::from_millis(1)),
            1 => builder.defer_taskrun(),
            2 => builder.coop_taskrun(),
            _ => builder,
        };
        let mut witness = PipeWitness::new().expect("pipe");
        let mut ring = builder.build().expect("ring");
        let bufs = 1 + dice.roll(200) as u32;
        ring.register_sparse(bufs).expect("register");
        ring.register_files_sparse(16).expect("register");
        ring.update_files(15, &[Some((witness.end(), 0))])
            .expect("file");
        let mut set = EpollSet::new().expect("epoll");
        set.add(&ring, 1, 1).expect("add");
        attach(arena, &mut dice, &ring, &set);
        for _ in 0..dice.roll(30) {
            let slot = dice.roll(u64::from(bufs)) as u32;
            let spec = (dice.roll(3) > 0).then_some(BufSpec::new(1 + dice.roll(9000) as usize));
            ring.update(slot, &[spec]).expect("update");
            adopt(arena, &mut dice, &mut ring);
            if dice.roll(10) == 0 {
                ring.unregister().expect("unregister");
                ring.register_sparse(bufs).expect("register");
            }
        }
        match &mut library {
            Some(library) => library.look(arena, &mut dice, ring, set),
            None => drop((ring, set)),
        }
        witness.let_go();
        assert!(
            witness.released(SOON).expect("poll"),
            "a closed ring is kept"
        );
        arena.seen.rings.fetch_add(1, Relaxed);
    }
}

/// New links for the readers. Old ones go, so that there are never many.
fn attach(arena: &Arena, dice: &mut Dice, ring: &impl AsFd, set: &EpollSet) {
    let mut new = Vec::new();
    for program in &arena.programs {
        new.push((program.attach(ring).expect("attach"), true));
    }
    new.push((arena.epoll.attach(set).expect("attach"), false));
    let mut links = arena.links.lock().unwrap_or_else(PoisonError::into_inner);
    links.extend(new);
    while links.len() > 12 {
        let at = dice.roll(links.len() as u64) as usize;
        links.swap_remove(at);
    }
}

/// Puts a link of anybody, or a session of it, into the ring's own table.
fn adopt(arena: &Arena, dice: &mut Dice, ring: &mut TestRing) {
    let slot = dice.roll(15) as u32;
    let links = arena.links.lock().unwrap_or_else(PoisonError::into_inner);
    let (link, _) = &links[dice.roll(links.len() as u64) as usize];
    let session = link.open();
    let entry = match (&session, dice.roll(3)) {
        (Ok(session), 0) => Some((session.as_fd(), 0)),
        (_, 1) => Some((link.as_fd(), 0)),
        _ => None,
    };
    ring.update_files(slot, &[entry]).expect("update");
}

/// Loaded once, which takes long, and attached to one ring after the other.
#[derive(Default)]
struct Library(Option<(RingFinder, UringBufIter)>);

impl Library {
    fn attach(&mut self, ring: &TestRing) -> &mut UringBufIter {
        let (pid, fd) = (std::process::id(), ring.raw_fd());
        if let Some((finder, iter)) = &mut self.0 {
            let found = finder.find_fd(pid, fd).expect("find");
            iter.reattach(&found).expect("reattach");
        } else {
            let retry = Retry {
                attempts: u32::MAX,
                deadline: SOON,
                ..Retry::default()
            };
            let options = Way::Native.options().retry(retry);
            let iter = options.attach(ring).expect("attach");
            self.0 = Some((finder(Backend::TaskFile), iter));
        }
        &mut self.0.as_mut().expect("just made").1
    }

    /// While the ring is there, and just when it goes.
    fn look(&mut self, arena: &Arena, dice: &mut Dice, ring: TestRing, set: EpollSet) {
        let iter = self.attach(&ring);
        for _ in 0..=dice.roll(20) {
            let bufs = iter.snapshot().expect("the ring is there");
            let seen = bufs.iter().map(|buf| (buf.addr(), buf.len()));
            let want = ring.expected().iter();
            let want = want.map(|buf| buf.map_or((0, 0), |b| (b.addr, b.len)));
            assert!(seen.eq(want), "{bufs:?}, registered: {:?}", ring.expected());
            arena.seen.snapshots.fetch_add(1, Relaxed);
        }
        drop((ring, set));
        match iter.snapshot() {
            Err(Error::RingGone { .. }) => arena.seen.snapshots_gone.fetch_add(1, Relaxed),
            other => panic!("the ring is closed: {other:?}"),
        };
    }
}

/// Opens sessions of whatever there is and reads them in steps of any size.
fn reader(arena: &Arena, mut dice: Dice) {
    let mut buf = vec![0; 4096];
    while !arena.stop.load(Relaxed) {
        let picked = {
            let links = arena.links.lock().unwrap_or_else(PoisonError::into_inner);
            let at = dice.roll(links.len().max(1) as u64) as usize;
            links.get(at).map(|(link, of_ring)| (link.open(), *of_ring))
        };
        let (mut session, of_ring) = match picked {
            Some((Ok(session), of_ring)) => (session, of_ring),
            refused => {
                if let Some((Err(e), _)) = refused {
                    assert_eq!(e.raw_os_error(), Some(libc::ENXIO));
                    arena.seen.gone.fetch_add(1, Relaxed);
                }
                thread::sleep(Duration::from_micros(200));
                continue;
            }
        };
        let step = 8 * (1 + dice.roll(100) as usize);
        let (mut all, start) = (Vec::new(), Instant::now());
        let ended = loop {
            match session.read(&mut buf[..step]) {
                Ok(0) => break true,
                Ok(n) => all.extend(uring_testkit::words(&buf[..n])),
                Err(e) => match e.raw_os_error() {
                    Some(libc::EDEADLK) => {
                        arena.seen.busy.fetch_add(1, Relaxed);
                        thread::sleep(Duration::from_micros(dice.roll(1000)));
                    }
                    Some(libc::ENXIO) => break false,
                    _ => panic!("read: {e}"),
                },
            }
            assert!(start.elapsed() < SOON, "a session that does not end");
        };
        match ended {
            true => arena.seen.whole.fetch_add(1, Relaxed),
            false => arena.seen.gone.fetch_add(1, Relaxed),
        };
        if of_ring {
            assert_in_order(&all, ended);
        }
    }
}

/// Each index once, in order; the last of a session that ended is the table's
/// size, which may have shrunk below where the session was.
#[track_caller]
fn assert_in_order(all: &[u64], ended: bool) {
    let (last, indices) = match all.split_last() {
        Some((last, indices)) if ended => (Some(*last), indices),
        _ => (None, all),
    };
    assert!(!ended || last.is_some(), "a session without an end");
    let want: Vec<u64> = (0..indices.len() as u64).collect();
    assert_eq!(indices, want);
    assert!(
        last.is_none_or(|end| end <= indices.len() as u64),
        "{last:?}"
    );
}
