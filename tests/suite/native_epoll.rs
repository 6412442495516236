//! Epoll sets by native iterators: every item once, also where several files have
//! one number, where items come and go between two reads, and where somebody keeps
//! the lock of the set.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{eventfd, EventfdFlags};
use rustix::fs::{fcntl_setfl, OFlags};
use uring_bpf_iter::{Contention, EpollItem, Link, Retry};
use uring_testkit::{
    fdinfo, interrupt_every, EpollSet, IterLink, IterSession, LockHolder, Request,
};

use super::contention::refused;
use super::native::{errno, eventfds, program, read, read_all, ring_of, set_of, SOON};
use super::native_resume::assert_all_sizes;
use super::results::skip;
use super::run::again;
use super::{done, inner, Outcome};

native_trials![Any:
    items_by_any_size_of_read,
    a_set_that_changes,
    a_nonblocking_read_does_not_wait,
    a_nonblocking_read_through_a_ring_does_not_wait,
    the_library_does_not_wait_either,
    a_blocking_read_waits,
    a_wait_that_is_interrupted,
];

/// Four files have one number among others: a walk that went by numbers would
/// find the first of them for ever.
fn crowded_set() -> EpollSet {
    let mut set = set_of(20);
    set.keep_under_one_number(eventfds(4), 1, 1000)
        .expect("add");
    for (data, file) in (20..).zip(eventfds(20)) {
        set.keep(file, 1, data).expect("add");
    }
    set
}

fn items_by_any_size_of_read() -> Outcome {
    let empty = EpollSet::new()?;
    let link = program("epoll").attach(&empty)?;
    assert_eq!(assert_all_sizes(&link), [0], "no item");
    let set = crowded_set();
    let link = program("epoll").attach(&set)?;
    let all = assert_all_sizes(&link);
    assert_eq!(all.len(), set.expected().len() + 1);
    assert_eq!(all.last(), Some(&0), "the end, and no item before it");
    assert_eq!(
        all.iter().collect::<BTreeSet<_>>().len(),
        all.len(),
        "each once"
    );
    done()
}

/// An item that is to be shown next goes away, by its number or by its file.
fn a_set_that_changes() -> Outcome {
    let program = program("epoll");
    for closing in [false, true] {
        let mut files = eventfds(24).collect::<Vec<_>>();
        let mut set = EpollSet::new()?;
        for (data, file) in (0..).zip(&files) {
            set.add(file, 1, data)?;
        }
        let link = program.attach(&set)?;
        let before = read_all(&mut link.open()?, 4096);
        let mut session = link.open()?;
        let mut first = [0; 8];
        read(&mut session, &mut first);
        assert_eq!(u64::from_ne_bytes(first), before[0]);
        // Half of them go, whichever is next.
        let gone = files.split_off(12);
        if !closing {
            for file in &gone {
                set.remove(file)?;
            }
        }
        drop(gone);
        let after = read_all(&mut link.open()?, 4096);
        assert_eq!(after.len(), 13);
        // What is left of it is what is left of them, in the same order.
        let want: Vec<u64> = after.into_iter().filter(|epi| *epi != before[0]).collect();
        assert_eq!(read_all(&mut session, 8), want, "closing: {closing}");
        set.keep(eventfds(1).next().expect("one"), 1, 77)?;
        assert!(
            read_all(&mut session, 8).is_empty(),
            "the end stays the end"
        );
    }
    done()
}

/// Items of a set whose lock can be kept.
const ITEMS: usize = 20;

/// One of them is ready.
fn ready_set() -> EpollSet {
    let mut set = set_of(ITEMS - 1);
    let ready = eventfd(1, EventfdFlags::CLOEXEC).expect("eventfd");
    set.keep(ready, 1, 99).expect("add");
    set
}

/// The lock of the set, or why this machine cannot keep it.
fn hold(set: &EpollSet) -> Result<LockHolder, String> {
    LockHolder::hold_epoll(set).map_err(|e| match e.kind() {
        std::io::ErrorKind::Unsupported => format!("no userfaultfd: {e}"),
        _ => panic!("hold: {e}"),
    })
}

/// A session that has given its first items, and all that it has to give.
fn begun(link: &IterLink, nr: usize) -> (IterSession, Vec<u64>) {
    let all = read_all(&mut link.open().expect("session"), 4096);
    assert_eq!(all.len(), ITEMS + 1);
    let mut session = link.open().expect("session");
    for want in &all[..nr] {
        let mut item = [0; 8];
        read(&mut session, &mut item);
        assert_eq!(u64::from_ne_bytes(item), *want);
    }
    (session, all)
}

/// A body that must come to its end while the lock is kept. If it waits for the lock,
/// `stuck` looks at what is the matter, and the lock is let go.
fn while_held<T: Send>(
    held: LockHolder,
    body: impl FnOnce() -> T + Send,
    stuck: impl FnOnce() -> String,
) -> T {
    thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let body = scope.spawn(move || {
            let result = body();
            // Nobody listens any more if it was late.
            let _late = tell.send(());
            result
        });
        let in_time = told.recv_timeout(Duration::from_secs(5)).is_ok();
        let stuck = (!in_time && !body.is_finished()).then(stuck);
        held.release().expect("release");
        let result = body.join();
        assert_eq!(stuck, None, "it waited for the lock");
        result.expect("no panic")
    })
}

/// EAGAIN, at any place of a session, which it keeps.
fn a_nonblocking_read_does_not_wait() -> Outcome {
    let set = ready_set();
    let link = program("epoll").attach(&set)?;
    let mut sessions = [0, 7, ITEMS - 1].map(|nr| (nr, begun(&link, nr)));
    let held = match hold(&set) {
        Ok(held) => held,
        Err(reason) => return skip(reason),
    };
    let body = || {
        for (_, (session, _)) in &mut sessions {
            session.set_nonblocking(true).expect("flags");
            for _ in 0..100 {
                let refused = session.read(&mut [0; 4096]);
                assert_eq!(errno(refused), libc::EAGAIN);
            }
        }
        // Neither attach nor iter_create takes the lock.
        program("epoll").attach(&set).expect("attach").open()
    };
    while_held(held, body, || "read(2)".into())?;
    for (nr, (session, all)) in &mut sessions {
        assert_eq!(read_all(session, 8), all[*nr..], "from item {nr} on");
    }
    done()
}

/// Nor does it keep the lock of the ring meanwhile, by which others submit.
fn a_nonblocking_read_through_a_ring_does_not_wait() -> Outcome {
    let set = ready_set();
    let link = program("epoll").attach(&set)?;
    let mut ring = ring_of(3);
    let buffers = program("io_uring_buf").attach(&ring)?;
    for by_worker in [false, true] {
        let (mut session, all) = begun(&link, 7);
        session.set_nonblocking(true)?;
        let held = match hold(&set) {
            Ok(held) => held,
            Err(reason) => return skip(reason),
        };
        let (pid, fd) = (std::process::id(), ring.as_fd().as_raw_fd());
        let body = || {
            for _ in 0..20 {
                let request = Request::read(&session, 4096).expect("memory");
                let request = if by_worker {
                    request.by_worker()
                } else {
                    request
                };
                let read = ring.run(request, SOON).expect("completion");
                assert_eq!(read.res, -libc::EAGAIN, "by a worker: {by_worker}");
                ring.nops(1).expect("io_uring_enter");
                let seen = read_all(&mut buffers.open().expect("session"), 4096);
                assert_eq!(seen, [0, 1, 2, 3]);
            }
        };
        while_held(held, body, || {
            let bufs = fdinfo::user_bufs(pid, fd).expect("fdinfo");
            format!(
                "IORING_OP_READ, by a worker: {by_worker}, with uring_lock: {}",
                bufs.is_none()
            )
        });
        assert_eq!(read_all(&mut session, 8), all[7..], "by read(2)");
    }
    done()
}

/// It tries again within its bounds.
fn the_library_does_not_wait_either() -> Outcome {
    let set = ready_set();
    let mut records = Link::<EpollItem>::attach(&set)?.records()?;
    fcntl_setfl(&records, OFlags::NONBLOCK)?;
    let held = match hold(&set) {
        Ok(held) => held,
        Err(reason) => return skip(reason),
    };
    let limit = Retry::default().deadline;
    let body = || refused(limit, || records.next_batch().map(drop));
    let why = while_held(held, body, || "next_batch()".into());
    assert_eq!(why, Contention::LockHeldUnseen);
    fcntl_setfl(&records, OFlags::empty())?;
    let batch = records.next_batch()?.expect("records");
    assert_eq!(batch.len(), ITEMS, "nothing was lost");
    done()
}

fn a_blocking_read_waits() -> Outcome {
    let set = ready_set();
    let link = program("epoll").attach(&set)?;
    let (mut session, all) = begun(&link, 7);
    // Only the flag as it is now counts.
    session.set_nonblocking(true)?;
    session.set_nonblocking(false)?;
    let held = match hold(&set) {
        Ok(held) => held,
        Err(reason) => return skip(reason),
    };
    thread::scope(|scope| {
        let reader = scope.spawn(|| read_all(&mut session, 4096));
        thread::sleep(Duration::from_millis(300));
        let waits = !reader.is_finished();
        held.release().expect("release");
        assert_eq!(reader.join().expect("no panic"), all[7..]);
        assert!(waits, "the lock is held");
    });
    done()
}

/// In a separate process, of which any thread may get the signal.
fn a_wait_that_is_interrupted() -> Outcome {
    if let Err(reason) = hold(&ready_set()) {
        return skip(reason);
    }
    inner::expect_done(&mut again("interrupted-read"));
    done()
}

pub(super) fn inside_interrupted() {
    let set = ready_set();
    let link = program("epoll").attach(&set).expect("attach");
    let (mut session, all) = begun(&link, 7);
    let held = hold(&set).expect("the lock");
    interrupt_every(Duration::from_millis(50)).expect("a timer");
    let start = Instant::now();
    for _ in 0..3 {
        let refused = session.read(&mut [0; 4096]);
        assert_eq!(errno(refused), libc::EINTR);
    }
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    interrupt_every(Duration::ZERO).expect("no timer");
    held.release().expect("release");
    assert_eq!(read_all(&mut session, 8), all[7..]);
}
