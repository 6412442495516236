//! Allocations that fail, one after the other, on the way to a read: a clean
//! errno, nothing kept, and the next one works.

use std::io;

use uring_bpf_iter::{Backend, UringFileIter};
use uring_testkit::{EpollSet, Faults, Injected, IterLink, PipeWitness};

use super::native::{program, ring, Pins, RING_TARGETS, SOON};
use super::results::skip;
use super::{done, Outcome};

native_trials![Alone:
    every_allocation_fails_once,
    a_table_of_files_that_could_not_be_made,
];

fn every_allocation_fails_once() -> Outcome {
    let faults = match Faults::new() {
        Ok(faults) => faults,
        Err(e) => return skip(e),
    };
    let pins = Pins::now();
    all(&faults);
    pins.assert_back();
    done()
}

/// It is an empty one: not one that is just being changed, for good.
fn a_table_of_files_that_could_not_be_made() -> Outcome {
    let faults = match Faults::new() {
        Ok(faults) => faults,
        Err(e) => return skip(e),
    };
    let mut refused = 0;
    for nth in 1..100 {
        let mut ring = ring();
        let (made, injected) = faults.fail_nth(nth, || ring.register_files_sparse(64))?;
        if injected == Injected::No {
            break;
        }
        if made.is_err() {
            refused += 1;
            let options = UringFileIter::options().backend(Backend::Native);
            let seen = options.attach(&ring)?.snapshot()?.len();
            assert_eq!(seen, 0, "allocation {nth}");
        }
    }
    println!("a table of files: {refused} refusals");
    assert!(refused > 0, "no allocation failed");
    done()
}

/// Lets each allocation fail once, of each step of each target.
pub(super) fn all(faults: &Faults) {
    for target in RING_TARGETS {
        let program = program(target);
        let mut witness = PipeWitness::new().expect("pipe");
        let mut ring = ring();
        ring.register(&[uring_testkit::BufSpec::new(100); 10])
            .expect("register");
        ring.register_files(&[witness.end()]).expect("register");
        // The first attach to a ring makes its anchor: a new ring each time.
        let first = |nth| {
            let ring = super::native::ring();
            faults.fail_nth(nth, || program.attach(&ring).map(drop))
        };
        step(target, "the first attach", first);
        steps(faults, target, || program.attach(&ring));
        drop(ring);
        witness.let_go();
        assert!(
            witness.released(SOON).expect("poll"),
            "{target}: a ring is kept"
        );
    }
    let mut witness = PipeWitness::new().expect("pipe");
    let program = program("epoll");
    let mut set = EpollSet::new().expect("epoll");
    set.add(witness.end(), 4, 1).expect("add");
    steps(faults, "epoll", || program.attach(&set));
    drop(set);
    witness.let_go();
    assert!(
        witness.released(SOON).expect("poll"),
        "epoll: a file is kept"
    );
}

fn steps(faults: &Faults, target: &str, attach: impl Fn() -> io::Result<IterLink>) {
    step(target, "attach", |nth| {
        faults.fail_nth(nth, || attach().map(drop))
    });
    let link = attach().expect("attach");
    step(target, "iter_create", |nth| {
        faults.fail_nth(nth, || link.open().map(drop))
    });
    // The first read of a session makes its buffer.
    step(target, "read", |nth| {
        let mut session = link.open().expect("session");
        let read = faults.fail_nth(nth, || session.read_all(4096).map(drop));
        // A read that failed may be repeated.
        session.read_all(4096).expect("read again");
        read
    });
    step(target, "all of it", |nth| {
        faults.fail_nth(nth, || {
            let mut session = attach()?.open()?;
            session.read_all(64).map(drop)
        })
    });
}

/// Runs a step with its first, its second, ... allocation failing, until there
/// are no more.
#[track_caller]
fn step(target: &str, what: &str, run: impl Fn(u32) -> io::Result<(io::Result<()>, Injected)>) {
    let mut refused = 0;
    for nth in 1..1000 {
        let (result, injected) = run(nth).expect("fail-nth");
        match (result, injected) {
            (Ok(()), Injected::No) => {
                println!(
                    "{target}, {what}: {} allocations, {refused} refusals",
                    nth - 1
                );
                // A read has something to fall back to, for each by itself.
                let read = what == "read";
                assert!(nth > 1 && (refused > 0 || read), "{target}, {what}");
                return;
            }
            (Ok(()), Injected::Yes) => {}
            (Err(e), Injected::Yes) if e.raw_os_error() == Some(libc::ENOMEM) => refused += 1,
            (Err(e), injected) => panic!("{target}, {what}, {nth} ({injected:?}): {e}"),
        }
    }
    panic!("{target}, {what}: it never ends");
}
