//! Rings that are created, filled, emptied and closed, with links and sessions
//! of any of them in the tables of any of them, while others read. Here is what
//! the threads share; who runs them says how long, and whether allocations fail.

mod counts;
mod library;
mod owner;
mod reader;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use uring_testkit::{Faults, Injected, IterLink, IterProgram};

use super::native::{program, RING_TARGETS};
pub(super) use counts::Counts;
use library::Library;

/// So many seconds, if the variable does not say otherwise.
const SECONDS: u64 = 60;

/// How long to go on.
pub(super) fn length() -> Duration {
    let seconds = std::env::var("URING_SUITE_STRESS").ok();
    let seconds = seconds.map_or(SECONDS, |s| s.parse().expect("seconds"));
    Duration::from_secs(seconds)
}

/// What the threads share.
pub(super) struct Arena {
    programs: [&'static IterProgram; 2],
    epoll: &'static IterProgram,
    /// Links of rings and sets that live or do not.
    links: Mutex<Vec<Link>>,
    /// If there are any, an allocation fails now and then.
    faults: Option<Faults>,
    stop: AtomicBool,
    pub(super) counts: Counts,
}

/// A link, and whether it is one of a ring.
struct Link {
    link: IterLink,
    of_ring: bool,
}

/// What the kernel may answer in place of what was asked for.
#[derive(Debug)]
enum Refusal {
    /// EDEADLK: somebody has the lock.
    Busy,
    /// ENXIO: the ring or the set is gone.
    Gone,
    /// ENOMEM: this very call was made to fail.
    Memory,
}

impl Arena {
    pub(super) fn new(faults: Option<Faults>) -> Self {
        Self {
            programs: RING_TARGETS.map(program),
            epoll: program("epoll"),
            links: Mutex::default(),
            faults,
            stop: AtomicBool::new(false),
            counts: Counts::default(),
        }
    }

    /// Goes on for so long, or until a thread panics; says how many did. Calls
    /// `tick` several times a second with the time that has passed.
    pub(super) fn run(&self, length: Duration, mut tick: impl FnMut(Duration)) -> usize {
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for seed in 1..=2 {
                let owner = move || owner::run(self, Dice(seed), None);
                threads.push(scope.spawn(move || self.stopping(owner)));
                let reader = move || reader::run(self, Dice(seed + 10));
                threads.push(scope.spawn(move || self.stopping(reader)));
            }
            let looking = move || owner::run(self, Dice(3), Some(Library::default()));
            threads.push(scope.spawn(move || self.stopping(looking)));
            let start = Instant::now();
            while start.elapsed() < length && self.goes_on() {
                thread::sleep(Duration::from_millis(100));
                tick(start.elapsed());
            }
            self.stop.store(true, Relaxed);
            let ended = threads.into_iter().map(thread::ScopedJoinHandle::join);
            ended.filter(Result::is_err).count()
        })
    }

    /// Ends the others when one panics, so that all are joined.
    fn stopping(&self, body: impl FnOnce()) {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Relaxed);
            }
        }
        let _at_the_end = Stop(&self.stop);
        body();
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Relaxed)
    }

    fn links(&self) -> MutexGuard<'_, Vec<Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the kernel for something, now and then with one of the allocations
    /// for it failing, and counts what came of it. No other errno is allowed, nor
    /// ENOMEM when no allocation was made to fail.
    #[track_caller]
    fn ask<T>(
        &self,
        dice: &mut Dice,
        what: &str,
        body: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, Refusal> {
        /// No call makes more allocations by far.
        const MOST: u64 = 30;
        let (result, injected) = match &self.faults {
            Some(faults) if dice.roll(4) == 0 => {
                let nth = 1 + dice.roll(MOST) as u32;
                faults.fail_nth(nth, body).expect("fail-nth")
            }
            _ => (body(), Injected::No),
        };
        let counts = &self.counts;
        if injected == Injected::Yes {
            counts.faults.add(1);
        }
        let error = match result {
            Ok(got) => return Ok(got),
            Err(error) => error,
        };
        let (count, refusal) = match (error.raw_os_error(), injected) {
            (Some(libc::EDEADLK), _) => (&counts.busy, Refusal::Busy),
            (Some(libc::ENXIO), _) => (&counts.gone, Refusal::Gone),
            (Some(libc::ENOMEM), Injected::Yes) => (&counts.memory, Refusal::Memory),
            _ => {
                counts.other.add(1);
                panic!("{what} ({injected:?}): {error}");
            }
        };
        count.add(1);
        Err(refusal)
    }
}

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
