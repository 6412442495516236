//! A set that never rests: no view that is accepted is torn. The same stress
//! without the check (raw) shows that it would tear.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{eventfd, EventfdFlags};
use uring_bpf_iter::{Backend, EpollItem, EpollIter, Error};
use uring_testkit::epoll_lines;

use super::native;
use super::results::skip;
use super::torn::{pace, pin, two_cpus, ALONE};
use super::{done, Outcome};

trials![
    verified_while_modified,
    verified_while_moved,
    locked_while_modified,
    locked_while_moved,
    fdinfo_while_modified,
    fdinfo_while_moved,
];

const STRESS: Duration = Duration::from_secs(2);
/// On a busy machine it goes on until it proves something, but not for ever.
const LONGEST: Duration = Duration::from_secs(40);
/// Items between the two that change: what a look takes is their time.
const BETWEEN: usize = 200;
/// Between two changes at least, so that a reader without the lock has a chance.
const REST: Duration = Duration::from_micros(150);
/// Torn views that would have been accepted without the check.
const WOULD_BE: u64 = 5;

/// What the writer does to the first and the last item of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Gives both the next number, the first one first: the last one is never
    /// ahead.
    Modify,
    /// Puts one in with the next number and gives that to the item in the
    /// middle, then takes the other one out.
    Move,
}

/// A set, and some of its items in the order of the kernel.
struct Subject {
    set: OwnedFd,
    first: OwnedFd,
    middle: OwnedFd,
    last: OwnedFd,
    _between: Vec<OwnedFd>,
    /// How many changes have begun.
    changes: AtomicU64,
    /// Nanoseconds between two changes.
    rest: AtomicU64,
}

impl Subject {
    fn new() -> Self {
        let set = epoll::create(CreateFlags::CLOEXEC).expect("epoll");
        let mut files: Vec<OwnedFd> = (0..BETWEEN + 2)
            .map(|_| eventfd(0, EventfdFlags::CLOEXEC).expect("eventfd"))
            .collect();
        for file in &files {
            epoll::add(&set, file, EventData::new_u64(0), EventFlags::IN).expect("add");
        }
        let lines = epoll_lines(std::process::id(), set.as_raw_fd()).expect("fdinfo");
        let mut take = |fd| {
            let at = files.iter().position(|file| file.as_raw_fd() == fd);
            files.swap_remove(at.expect("it was added"))
        };
        let (middle, last) = (lines.len() / 2, lines.len() - 1);
        Self {
            set,
            first: take(lines[0].fd),
            middle: take(lines[middle].fd),
            last: take(lines[last].fd),
            _between: files,
            changes: AtomicU64::new(0),
            rest: AtomicU64::new(REST.as_nanos() as u64),
        }
    }

    /// Without sleep, which would take longer.
    fn rest(&self) {
        let rest = Duration::from_nanos(self.rest.load(Ordering::Relaxed));
        let start = Instant::now();
        while start.elapsed() < rest {
            std::hint::spin_loop();
        }
    }

    fn change(&self, change: Change, number: u64) {
        let data = EventData::new_u64(number);
        match change {
            Change::Modify => {
                for item in [&self.first, &self.last] {
                    epoll::modify(&self.set, item, data, EventFlags::IN).expect("modify");
                }
            }
            Change::Move => {
                let (to, from) = match number % 2 {
                    0 => (&self.first, &self.last),
                    _ => (&self.last, &self.first),
                };
                // Both are there the first time.
                epoll::add(&self.set, to, data, EventFlags::IN)
                    .or_else(|_| epoll::modify(&self.set, to, data, EventFlags::IN))
                    .expect("add");
                epoll::modify(&self.set, &self.middle, data, EventFlags::IN).expect("modify");
                self.rest();
                epoll::delete(&self.set, from).expect("delete");
            }
        }
    }

    /// What can not have been at one moment.
    fn is_torn(&self, change: Change, items: &[EpollItem]) -> bool {
        let data = |file: &OwnedFd| {
            let mut found = items.iter().filter(|item| item.fd() == file.as_raw_fd());
            let data = found.next().map(EpollItem::data);
            assert!(found.next().is_none(), "an item twice");
            data
        };
        let (first, last) = (data(&self.first), data(&self.last));
        let there = first.iter().chain(&last).count();
        if items.len() != BETWEEN + there {
            return true;
        }
        match (change, first, last) {
            (Change::Modify, Some(first), Some(last)) => last > first || first - last > 1,
            (Change::Modify, ..) => true,
            (Change::Move, first, last) => {
                let middle = data(&self.middle).expect("it never goes");
                let newest = first.max(last).unwrap_or(0);
                let behind = u64::from(there == 2);
                newest < middle || newest - middle > behind
            }
        }
    }
}

/// What a stress came to.
#[derive(Debug, Default)]
struct Tally {
    accepted: u64,
    torn: u64,
    retries: u64,
    refused: u64,
    /// Views by a single attempt in which a change began.
    met: u64,
    /// Of the last torn view what is ever changed: number and data.
    last_torn: Vec<(i32, u64)>,
}

fn stress(
    subject: &Subject,
    change: Change,
    backend: Backend,
    raw: bool,
    enough: impl Fn(&Tally) -> bool,
) -> Tally {
    let options = EpollIter::options().backend(backend);
    let mut iter = options.attach(subject.set.as_fd()).expect("attach");
    let mut tally = Tally::default();
    let start = Instant::now();
    while start.elapsed() < STRESS || (start.elapsed() < LONGEST && !enough(&tally)) {
        let before = subject.changes.load(Ordering::Relaxed);
        let look = match raw {
            true => iter.snapshot_raw(),
            false => iter.snapshot(),
        };
        match look {
            Ok(items) => {
                tally.accepted += 1;
                let began = subject.changes.load(Ordering::Relaxed) > before;
                tally.met += u64::from(began && items.attempts() == 1);
                tally.retries += u64::from(items.attempts() - 1);
                let torn = subject.is_torn(change, &items);
                if torn {
                    let changed = items.iter().filter(|item| item.data() != 0);
                    tally.last_torn = changed.map(|item| (item.fd(), item.data())).collect();
                }
                tally.torn += u64::from(torn);
            }
            Err(Error::Contended { attempts, .. }) => {
                tally.retries += u64::from(attempts);
                tally.refused += 1;
            }
            Err(other) => panic!("Contended is the only error: {other:?}"),
        }
    }
    tally
}

fn check(backend: Backend, change: Change) -> Outcome {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((ours, its)) = two_cpus() else {
        return skip("a reader and a writer at the same time need two CPUs");
    };
    let (subject, stop) = (Subject::new(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            pin(None, its);
            while !stop.load(Ordering::Relaxed) {
                let number = subject.changes.fetch_add(1, Ordering::Relaxed) + 1;
                subject.change(change, number);
                subject.rest();
            }
        });
        let body = || {
            pin(None, ours);
            prove(&subject, backend, change);
        };
        // In a thread of its own, which takes its CPU with it.
        let proven = scope.spawn(body).join();
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = proven {
            std::panic::resume_unwind(panic);
        }
    });
    assert!(subject.changes.into_inner() > 500, "the set stood still");
    done()
}

fn prove(subject: &Subject, backend: Backend, change: Change) {
    if backend == Backend::TaskFile {
        let options = EpollIter::options().backend(backend);
        let mut iter = options.attach(subject.set.as_fd()).expect("attach");
        let rest = pace(|| {
            let _one_of_many = iter.snapshot_raw().expect("look");
        });
        let rest = rest.max(REST).as_nanos() as u64;
        subject.rest.store(rest, Ordering::Relaxed);
    }
    // The check taken out. Only TaskFile has such a look.
    let tears = |raw: &Tally| raw.torn > 0;
    let raw = stress(subject, change, Backend::TaskFile, true, tears);
    assert!(raw.torn > 0, "the stress would catch nothing: {raw:?}");
    let would_be = |tally: &Tally| tally.accepted * raw.torn / raw.accepted;
    let enough = |tally: &Tally| match backend {
        // A text takes so much longer than the raw look that the rate of that says
        // too little of it.
        Backend::Fdinfo => tally.met >= 50,
        _ => would_be(tally) >= WOULD_BE,
    };
    let tally = stress(subject, change, backend, false, enough);
    println!(
        "epoll_torn: {backend}, {change:?}: raw: {raw:?}, {tally:?}; without the check {} would be torn",
        would_be(&tally)
    );
    assert_eq!(tally.torn, 0, "{tally:?}");
    assert!(enough(&tally), "too few for a proof: {tally:?}, {raw:?}");
}

fn verified_while_modified() -> Outcome {
    check(Backend::TaskFile, Change::Modify)
}

fn verified_while_moved() -> Outcome {
    check(Backend::TaskFile, Change::Move)
}

/// By the kernel's own iterator, which has the set's lock.
fn locked_while_modified() -> Outcome {
    native::run(|| check(Backend::Native, Change::Modify))
}

fn locked_while_moved() -> Outcome {
    native::run(|| check(Backend::Native, Change::Move))
}

fn fdinfo_while_modified() -> Outcome {
    check(Backend::Fdinfo, Change::Modify)
}

fn fdinfo_while_moved() -> Outcome {
    check(Backend::Fdinfo, Change::Move)
}
