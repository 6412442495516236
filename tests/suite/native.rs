//! What the trials of the patched kernel's iterators share.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::set_thread_res_uid;
use uring_testkit::{page_size, EpollSet, RingBuilder, TestRing};
use uring_testkit::{pinned_pages, settled_pins, words, BufSpec, IterProgram, IterSession};

use super::oracle::has_native;
use super::results::skip;
use super::Outcome;

/// The targets for a ring.
pub(super) const RING_TARGETS: [&str; 2] = ["io_uring_buf", "io_uring_file"];

/// Much longer than anything takes that happens at all, also in an emulated
/// machine with all checks on.
pub(super) const SOON: Duration = Duration::from_secs(30);

/// Runs a trial, or says why not. A machine that is to have the iterators fails
/// instead.
pub(super) fn run(trial: fn() -> Outcome) -> Outcome {
    if has_native() {
        trial()
    } else {
        skip("this kernel has no iterator target io_uring_buf: see kernel/")
    }
}

/// The program for a target, loaded once: to find its number among the kernel's
/// types takes seconds in an emulated machine.
#[track_caller]
pub(super) fn program(target: &str) -> &'static IterProgram {
    static LOADED: [(&str, OnceLock<IterProgram>); 3] = [
        (RING_TARGETS[0], OnceLock::new()),
        (RING_TARGETS[1], OnceLock::new()),
        ("epoll", OnceLock::new()),
    ];
    let (_, program) = (LOADED.iter().find(|(name, _)| *name == target)).expect("a target");
    program.get_or_init(|| IterProgram::load(target).unwrap_or_else(|e| panic!("{target}: {e}")))
}

#[track_caller]
pub(super) fn ring() -> TestRing {
    RingBuilder::new(8).build().expect("ring")
}

/// A ring with so many buffers of one page.
#[track_caller]
pub(super) fn ring_of(bufs: usize) -> TestRing {
    let mut ring = ring();
    ring.register(&vec![BufSpec::new(page_size()); bufs])
        .expect("register");
    ring
}

/// Files of their own that can be waited for.
pub(super) fn eventfds(nr: usize) -> impl Iterator<Item = OwnedFd> {
    let flags = rustix::event::EventfdFlags::CLOEXEC;
    (0..nr).map(move |_| rustix::event::eventfd(0, flags).expect("eventfd"))
}

/// An epoll set with so many items. Of one item what comes after it, the end, is
/// at hand before it is asked for.
#[track_caller]
pub(super) fn set_of(items: usize) -> EpollSet {
    let mut set = EpollSet::new().expect("epoll");
    for (data, file) in (0..).zip(eventfds(items)) {
        set.keep(file, 1, data).expect("add");
    }
    set
}

/// The errno of what must fail.
#[track_caller]
pub(super) fn errno<T>(result: io::Result<T>) -> i32 {
    let Err(error) = result else {
        panic!("it should fail");
    };
    error.raw_os_error().unwrap_or_else(|| panic!("{error}"))
}

/// A thread without rights, in which all else is the same.
pub(super) fn as_nobody<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    let nobody = rustix::process::Uid::from_raw(super::run::NOBODY);
    let body = || {
        // Of this thread alone: it drops every capability.
        set_thread_res_uid(nobody, nobody, nobody).expect("setresuid");
        body()
    };
    thread::scope(|scope| scope.spawn(body).join().expect("no panic"))
}

/// One read, as often as the lock is taken; also how often it was.
#[track_caller]
pub(super) fn read(session: &mut IterSession, buf: &mut [u8]) -> (usize, u32) {
    let (start, mut refused) = (Instant::now(), 0);
    loop {
        match session.read(buf) {
            Ok(n) => return (n, refused),
            // EAGAIN: that of an epoll set, with O_NONBLOCK.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EDEADLK | libc::EAGAIN)) => {
                refused += 1;
            }
            Err(e) => panic!("read: {e}"),
        }
        assert!(start.elapsed() < SOON, "the lock was never free");
        thread::sleep(Duration::from_millis(1));
    }
}

/// All that is left of a session, `step` bytes at a time.
#[track_caller]
pub(super) fn read_all(session: &mut IterSession, step: usize) -> Vec<u64> {
    read_up_to(session, step, usize::MAX)
}

/// The same, of a session that has so many words at most: one that goes round in
/// circles would be read for ever.
#[track_caller]
pub(super) fn read_up_to(session: &mut IterSession, step: usize, most: usize) -> Vec<u64> {
    let (mut all, mut buf) = (Vec::new(), vec![0; step]);
    loop {
        match read(session, &mut buf).0 {
            0 => return words(&all),
            n => all.extend_from_slice(&buf[..n]),
        }
        assert!(
            all.len() / 8 <= most,
            "more than {most}, {step} bytes a read"
        );
    }
}

/// Counts the pages that are pinned now, and checks at the end of its scope
/// that as many are.
pub(super) struct Pins(i64);

impl Pins {
    /// When what went before has come to rest.
    pub(super) fn now() -> Self {
        let look = || pinned_pages().expect("pins");
        let start = Instant::now();
        let (mut last, mut same) = (look(), 0);
        while same < 20 {
            assert!(start.elapsed() < SOON, "pins never rest");
            thread::sleep(Duration::from_millis(10));
            let now = look();
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
        Self(last)
    }

    /// How many more there are, once it is none or they have had their time to go.
    #[track_caller]
    pub(super) fn more(&self) -> i64 {
        settled_pins(self.0, SOON).expect("pins") - self.0
    }

    #[track_caller]
    pub(super) fn assert_more(&self, pages: i64) {
        let now = settled_pins(self.0 + pages, SOON).expect("pins");
        assert_eq!(now - self.0, pages, "pinned pages");
    }

    #[track_caller]
    pub(super) fn assert_back(&self) {
        self.assert_more(0);
    }
}
