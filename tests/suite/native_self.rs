//! A read of an iterator that is submitted through the very ring that it reads.
//! Issued inline it comes with uring_lock held, and must be told EDEADLK; a
//! worker thread or an SQPOLL thread takes turns with the one who submits.

use std::fs::File;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use uring_testkit::{words, IterLink, IterSession, Request, RingBuilder, TestRing};

use super::native::{program, read_all, SOON};
use super::results::skip;
use super::{done, Outcome};

native_trials![Any:
    through_a_plain_ring,
    through_coop_taskrun,
    through_single_issuer,
    through_defer_taskrun,
    through_sqpoll,
    through_iopoll,
    through_the_ring_of_another_target,
];

const SLOTS: u64 = 10;

/// How a read gets to the kernel.
#[derive(Debug, Clone, Copy)]
struct How {
    nonblocking: bool,
    by_worker: bool,
    /// The session is in the ring's own table of files, without a descriptor.
    registered: bool,
}

impl How {
    fn all() -> impl Iterator<Item = Self> {
        (0..8).map(|bits| Self {
            nonblocking: bits & 1 != 0,
            by_worker: bits & 2 != 0,
            registered: bits & 4 != 0,
        })
    }

    /// Under uring_lock, before the system call that submits returns.
    fn is_inline(self) -> bool {
        self.nonblocking && !self.by_worker
    }

    fn request(self, session: &IterSession) -> Request {
        let request = match self.registered {
            true => Request::read_slot(0, 4096),
            false => Request::read(session, 4096),
        };
        let request = request.expect("memory");
        match self.by_worker {
            true => request.by_worker(),
            false => request,
        }
    }
}

/// A session of a link, prepared as it is to be read.
fn session(ring: &mut TestRing, link: &IterLink, how: How) -> IterSession {
    let session = link.open().expect("session");
    session.set_nonblocking(how.nonblocking).expect("flags");
    if how.registered {
        ring.update_files(0, &[Some((session.as_fd(), 0))])
            .expect("update");
    }
    session
}

/// One read that is issued inline: refused, and nothing is lost.
fn inline(ring: &mut TestRing, link: &IterLink, how: How) {
    let mut session = session(ring, link, how);
    for turn in 0..20 {
        let read = ring.run(how.request(&session), SOON).expect("completion");
        assert_eq!(read.res, -libc::EDEADLK, "{how:?}, turn {turn}");
    }
    let all: Vec<u64> = (0..=SLOTS).collect();
    assert_eq!(read_all(&mut session, 4096), all, "{how:?}: and by read(2)");
}

/// One read by another thread of the kernel's. It may find the lock taken by
/// the very system call that has submitted it, any number of times.
fn elsewhere(ring: &mut TestRing, link: &IterLink, how: How) -> u32 {
    let mut session = session(ring, link, how);
    let (start, mut refused) = (Instant::now(), 0);
    let all: Vec<u64> = (0..=SLOTS).collect();
    loop {
        let read = ring.run(how.request(&session), SOON).expect("completion");
        match read.res {
            e if e == -libc::EDEADLK => refused += 1,
            _ => {
                assert_eq!(read.res as u64, 8 * (SLOTS + 1), "{how:?}: {read:?}");
                assert_eq!(words(&read.bytes), all, "{how:?}");
                break;
            }
        }
        assert!(start.elapsed() < SOON, "{how:?}: refused {refused} times");
        // Another time each turn, so that no rhythm of the two lasts.
        thread::sleep(Duration::from_micros(u64::from(refused % 17) * 100));
    }
    assert!(read_all(&mut session, 4096).is_empty(), "{how:?}: the end");
    refused
}

fn through(name: &str, builder: RingBuilder) -> Outcome {
    let mut ring = match builder.build() {
        Ok(ring) => ring,
        Err(e) => return skip(format!("the kernel makes no such ring: {e}")),
    };
    let buf = uring_testkit::BufSpec::new(100);
    ring.register(&[buf; SLOTS as usize])?;
    ring.register_files_sparse(SLOTS as u32)?;
    let mut refused = 0;
    for target in super::native::RING_TARGETS {
        let link = program(target).attach(&ring)?;
        for how in How::all() {
            // Only the thread of SQPOLL holds uring_lock while it submits: it
            // issues inline as well.
            if how.is_inline() {
                inline(&mut ring, &link, how);
            } else {
                refused += elsewhere(&mut ring, &link, how);
            }
        }
    }
    println!("{name}: refused {refused} times before all was read");
    // It still works.
    let zero = File::open("/dev/zero")?;
    assert_eq!(ring.run(Request::read(&zero, 8)?, SOON)?.bytes, [0; 8]);
    done()
}

fn through_a_plain_ring() -> Outcome {
    through("plain", RingBuilder::new(8))
}

fn through_coop_taskrun() -> Outcome {
    through("COOP_TASKRUN", RingBuilder::new(8).coop_taskrun())
}

fn through_single_issuer() -> Outcome {
    through("SINGLE_ISSUER", RingBuilder::new(8).single_issuer())
}

fn through_defer_taskrun() -> Outcome {
    through("DEFER_TASKRUN", RingBuilder::new(8).defer_taskrun())
}

fn through_sqpoll() -> Outcome {
    let idle = Duration::from_millis(2);
    through("SQPOLL", RingBuilder::new(8).sqpoll(idle))
}

/// Only files that can be polled for are read.
fn through_iopoll() -> Outcome {
    let mut ring = RingBuilder::new(8).iopoll().build()?;
    ring.register(&[uring_testkit::BufSpec::new(100); SLOTS as usize])?;
    ring.register_files_sparse(SLOTS as u32)?;
    let link = program("io_uring_buf").attach(&ring)?;
    for how in How::all() {
        let mut session = session(&mut ring, &link, how);
        let read = ring.run(how.request(&session), SOON)?;
        assert_eq!(read.res, -libc::EOPNOTSUPP, "{how:?}");
        let all: Vec<u64> = (0..=SLOTS).collect();
        assert_eq!(read_all(&mut session, 4096), all, "{how:?}: by read(2)");
    }
    done()
}

/// What is no look at the ring that it goes through meets no lock.
fn through_the_ring_of_another_target() -> Outcome {
    let (mut ring, seen) = (super::native::ring(), super::native::ring_of(5));
    ring.register_files_sparse(1)?;
    let mut set = uring_testkit::EpollSet::new()?;
    set.add(&seen, 1, 1)?;
    for (link, len) in [
        (program("io_uring_buf").attach(&seen)?, 6),
        (program("epoll").attach(&set)?, 2),
    ] {
        for how in How::all() {
            let session = session(&mut ring, &link, how);
            let start = Instant::now();
            let read = loop {
                let read = ring.run(how.request(&session), SOON)?;
                // Another trial may look at all rings of this process.
                if read.res != -libc::EDEADLK {
                    break read;
                }
                assert!(start.elapsed() < SOON, "{how:?}");
            };
            assert_eq!(words(&read.bytes).len(), len, "{how:?}: {read:?}");
        }
    }
    done()
}
