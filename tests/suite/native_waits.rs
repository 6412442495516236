//! The longest wait of one who uses a large table while another reads it, by an
//! iterator and by fdinfo.
//!
//! The reader holds the lock of the table for a walk. It has little right to its
//! processor (nice 19, or SCHED_IDLE), and during the walk another thread there
//! begins to want it all. A kernel that gives it away in the middle of the walk lets
//! the owner wait until the reader has had its seldom turns: for seconds. A preemptible
//! kernel takes it from any reader, also from that of fdinfo: there only the two are
//! compared.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::process::{getrlimit, setpriority_process, setrlimit, Resource, Rlimit};
use rustix::thread::{sched_setaffinity, CpuSet};
use uring_testkit::{idle_priority, BpfArray, IterLink, IterProgram, TestRing};

use super::native::{eventfds, ring, ring_of};
use super::results::skip;
use super::run::again;
use super::{done, inner, Outcome};

native_trials![Alone:
    an_owner_of_many_buffers,
    an_owner_of_many_files,
    a_set_of_many_items,
];

/// Waits that are compared, and walks of a reader during which they are.
const TRIES: u32 = 20;

/// No wait may be longer, unless it is with fdinfo, too, as on a busy machine.
const LIMIT: Duration = Duration::from_millis(500);

/// Waits of such a length come of the machine around a virtual one: of two below it
/// none is the longer.
const NOISE: Duration = Duration::from_millis(100);

/// After such a wait there is nothing left to find out.
const ENOUGH: Duration = Duration::from_secs(2);

/// How long the processor of the reader is wanted, at least: several turns.
const RIVALRY: Duration = Duration::from_millis(50);

/// The processors of the reader and of the owner.
const READERS: usize = 0;
const OWNERS: usize = 1;

/// How little the reader wants its processor.
#[derive(Debug, Clone, Copy)]
enum Priority {
    Nice19,
    Idle,
}

impl Priority {
    fn take(self) {
        match self {
            Self::Nice19 => setpriority_process(None, 19).expect("setpriority"),
            Self::Idle => idle_priority().expect("sched_setscheduler"),
        }
    }
}

/// The longest wait of each try.
#[derive(Default)]
struct Waits(Vec<Duration>);

impl Waits {
    fn worst(&self) -> Duration {
        self.0.iter().copied().max().unwrap_or_default()
    }

    /// A busy machine adds little to it.
    fn middle(&self) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    fn are_no_longer_than(&self, fdinfo: &Self, limit: Duration) -> bool {
        let bound = |other: Duration| (2 * other).max(NOISE);
        self.worst() <= bound(fdinfo.worst())
            && self.middle() <= bound(fdinfo.middle())
            && self.worst() <= fdinfo.worst().max(limit)
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (worst, middle, nr) = (self.worst(), self.middle(), self.0.len());
        write!(
            f,
            "{worst:.1?} (the worst of {nr}; half of them {middle:.1?})"
        )
    }
}

fn is_preemptible() -> bool {
    let version = fs::read_to_string("/proc/version").expect("the kernel's version");
    version.contains("PREEMPT")
}

/// The calling thread, from now on.
fn stay_on(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).expect("sched_setaffinity");
}

/// A table, in which something may be read or changed under its lock.
struct Measured<'a> {
    name: &'a str,
    /// Elements of the table, at least.
    elements: u64,
    link: IterLink,
    /// Counts the elements that the iterator has shown.
    shown: BpfArray,
    /// The path of its fdinfo.
    fdinfo: String,
    /// Done by its owner, with the lock.
    touch: Box<dyn FnMut() + 'a>,
}

/// A read of the whole table; false if it was refused because the lock was taken.
type Read<'a> = &'a (dyn Fn() -> bool + Sync);

impl<'a> Measured<'a> {
    fn new(
        name: &'a str,
        elements: u64,
        table: impl AsFd,
        touch: impl FnMut() + 'a,
    ) -> io::Result<Self> {
        let shown = BpfArray::of_a_number()?;
        Ok(Self {
            name,
            elements,
            link: IterProgram::load_counting(name, &shown)?.attach(&table)?,
            shown,
            fdinfo: format!("/proc/self/fdinfo/{}", table.as_fd().as_raw_fd()),
            touch: Box::new(touch),
        })
    }

    fn shown(&self) -> u64 {
        let number = self.shown.read(0).expect("a number");
        u64::from_ne_bytes(number.try_into().expect("eight bytes"))
    }

    /// The waits beside an iterator and beside fdinfo. Noise makes them longer and never
    /// shorter, so that the best of three rounds is the one that counts.
    fn compare(&mut self, priority: Priority) {
        let limit = match is_preemptible() {
            true => Duration::MAX,
            false => LIMIT,
        };
        let mut seen = Vec::new();
        for _ in 0..3 {
            let (iterator, fdinfo) = (self.beside_iterator(priority), self.beside_fdinfo(priority));
            let told = format!(
                "{}, {} elements, {priority:?}: a wait of {iterator}, with fdinfo {fdinfo}",
                self.name, self.elements
            );
            println!("{told}");
            if iterator.are_no_longer_than(&fdinfo, limit) {
                return;
            }
            seen.push(told);
        }
        panic!("{seen:#?}");
    }

    fn beside_iterator(&mut self, priority: Priority) -> Waits {
        let (link, before) = (&self.link, self.shown());
        let read = || match link.open().expect("session").read(&mut [0; 8]) {
            // It goes through all of a table without a pause if there is no output.
            Ok(0) => true,
            Err(e) if e.raw_os_error() == Some(libc::EDEADLK) => false,
            other => panic!("{other:?}"),
        };
        let (waits, reads) = waits(priority, &read, &mut self.touch);
        let shown = self.shown() - before;
        assert!(
            shown >= u64::from(reads) * self.elements,
            "{reads} reads of {} elements: {shown}",
            self.elements
        );
        waits
    }

    fn beside_fdinfo(&mut self, priority: Priority) -> Waits {
        let (path, elements) = (&self.fdinfo, self.elements);
        let read = || {
            let text = fs::read(path).expect("fdinfo");
            // Without the lock it tells numbers only, and of 7.2 on nothing.
            text.iter().filter(|byte| **byte == b'\n').count() as u64 >= elements
        };
        waits(priority, &read, &mut self.touch).0
    }
}

/// The waits, and how often the table was read meanwhile.
fn waits(priority: Priority, read: Read<'_>, touch: &mut dyn FnMut()) -> (Waits, u32) {
    stay_on(OWNERS);
    let mut reads = 0;
    let mut quiet = || {
        let start = Instant::now();
        reads += u32::from(read());
        start.elapsed()
    };
    let quiet = quiet().min(quiet());
    let (mut waits, mut tries) = (Waits::default(), 0);
    let start = Instant::now();
    while tries < TRIES && waits.worst() < ENOUGH {
        // Another moment of the read each time.
        let after = quiet * (tries + 2) / (TRIES + 4);
        let (whole, longest) = one_read(priority, read, touch, after);
        if whole {
            waits.0.push(longest);
            tries += 1;
        }
        assert!(
            tries > 0 || start.elapsed() < super::native::SOON,
            "the lock was never free"
        );
    }
    (waits, reads + tries)
}

/// One read, with a rival of the reader's after some time, and the longest wait until
/// it has ended. It is the owner that sends the rival away, so never while it waits.
fn one_read(
    priority: Priority,
    read: Read<'_>,
    touch: &mut dyn FnMut(),
    after: Duration,
) -> (bool, Duration) {
    let flags = [const { AtomicBool::new(false) }; 3];
    let [started, ended, enough] = &flags;
    thread::scope(|scope| {
        let rival = scope.spawn(|| {
            stay_on(READERS);
            while !started.load(Ordering::Acquire) {
                thread::park();
            }
            thread::sleep(after);
            while !enough.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let rival = rival.thread().clone();
        let reader = scope.spawn(move || {
            stay_on(READERS);
            priority.take();
            started.store(true, Ordering::Release);
            rival.unpark();
            let whole = read();
            ended.store(true, Ordering::Release);
            whole
        });
        while !started.load(Ordering::Acquire) {
            thread::sleep(Duration::from_micros(100));
        }
        let (start, mut longest) = (Instant::now(), Duration::ZERO);
        while !ended.load(Ordering::Acquire) && !reader.is_finished() {
            let before = Instant::now();
            touch();
            longest = longest.max(before.elapsed());
            if start.elapsed() > after + RIVALRY {
                enough.store(true, Ordering::Relaxed);
            }
            thread::sleep(Duration::from_micros(200));
        }
        enough.store(true, Ordering::Relaxed);
        let whole = reader.join().expect("no panic");
        (whole, longest)
    })
}

/// In a separate process, for the priorities and the many descriptors.
fn trial(mode: &str) -> Outcome {
    if Path::new("/proc/lockdep_stats").exists() {
        return skip("this kernel checks its locks, so that its waits say nothing");
    }
    if thread::available_parallelism()?.get() <= OWNERS {
        return skip("reader and owner need a processor each");
    }
    print!("{}", inner::expect_done(&mut again(mode)));
    done()
}

fn an_owner_of_many_buffers() -> Outcome {
    trial("waits-for-buffers")
}

fn an_owner_of_many_files() -> Outcome {
    trial("waits-for-files")
}

fn a_set_of_many_items() -> Outcome {
    trial("waits-for-items")
}

fn both(mut table: Measured<'_>) {
    table.compare(Priority::Nice19);
    // It is chance when the other one has a turn again, once it has lost its processor.
    if !is_preemptible() {
        table.compare(Priority::Idle);
    }
}

/// The owner submits a request that does nothing.
fn of_ring(name: &str, elements: u64, ring: &mut TestRing) {
    let fd: OwnedFd = ring.as_fd().try_clone_to_owned().expect("dup");
    let touch = || ring.nops(1).expect("io_uring_enter");
    both(Measured::new(name, elements, &fd, touch).expect("an iterator"));
}

pub(super) fn inside_buffers() {
    const BUFS: usize = 16_384;
    of_ring("io_uring_buf", BUFS as u64, &mut ring_of(BUFS));
}

pub(super) fn inside_files() {
    const FILES: usize = 100_000;
    allow_descriptors(FILES as u64);
    let event = eventfds(1).next().expect("one");
    let mut ring = ring();
    ring.register_files(&vec![event.as_fd(); FILES])
        .expect("register");
    of_ring("io_uring_file", FILES as u64, &mut ring);
}

/// The owner adds a file and closes it, which takes it out again.
pub(super) fn inside_items() {
    const ITEMS: usize = 30_000;
    allow_descriptors(2 * ITEMS as u64);
    let add = |set: &OwnedFd, file: &OwnedFd| {
        let data = epoll::EventData::new_u64(1);
        epoll::add(set, file, data, epoll::EventFlags::IN).expect("epoll_ctl");
    };
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
    // An item is a file and a number.
    let event = eventfds(1).next().expect("one");
    let numbers = (0..ITEMS).map(|_| event.try_clone().expect("dup"));
    let numbers: Vec<OwnedFd> = numbers.inspect(|number| add(&set, number)).collect();
    let touch = || {
        let watched = eventfds(1).next().expect("one");
        add(&set, &watched);
        drop(watched);
    };
    both(Measured::new("epoll", ITEMS as u64, &set, touch).expect("an iterator"));
    drop(numbers);
}

/// Raises the limit of descriptors to this number and some more.
fn allow_descriptors(nr: u64) {
    let limit = getrlimit(Resource::Nofile);
    let enough = |now: Option<u64>| now.map(|now| now.max(nr + 1000));
    let limit = Rlimit {
        current: enough(limit.current),
        maximum: enough(limit.maximum),
    };
    setrlimit(Resource::Nofile, limit).expect("setrlimit");
}
