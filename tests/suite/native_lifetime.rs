//! What links and sessions must not do: reach another ring, keep a dead one, or
//! keep themselves alive in a circle. Witnesses are the count of pinned pages
//! and pipes whose ends are registered, so each trial is alone.

use std::os::fd::{AsFd, BorrowedFd};

use uring_testkit::{page_size, BufSpec, EpollSet, IterLink, IterSession, PipeWitness, TestRing};

use super::native::{errno, program, read, ring, set_of, Pins, RING_TARGETS, SOON};
use super::{done, Outcome};

native_trials![Alone:
    no_other_ring_is_reached,
    no_other_epoll_set_is_reached,
    a_dead_ring_is_not_kept,
    a_closed_set_is_not_kept,
    a_ring_that_holds_its_own_links,
    rings_that_hold_the_links_of_each_other,
    a_ring_a_set_and_links_of_both,
    a_watched_file_is_not_kept,
];

const PAGES: usize = 64;

/// A ring with pinned pages that nobody has mapped, and a registered pipe.
fn tomb(witness: &PipeWitness) -> TestRing {
    let mut ring = ring();
    ring.register(&[BufSpec::new(page_size()); PAGES])
        .expect("register");
    ring.drop_mapping();
    ring.register_files_sparse(16).expect("files");
    ring.update_files(0, &[Some((witness.end(), 0))])
        .expect("file");
    ring
}

/// Both links of a ring, and for each a session at the start, one in the middle
/// and one at the end.
fn looks(ring: &TestRing) -> (Vec<IterLink>, Vec<IterSession>) {
    let (mut links, mut sessions) = (Vec::new(), Vec::new());
    for target in RING_TARGETS {
        let link = program(target).attach(ring).expect("attach");
        for bytes in [0, 8, 64 * 1024] {
            let mut session = link.open().expect("session");
            if bytes > 0 {
                assert!(read(&mut session, &mut vec![0; bytes]).0 > 0);
            }
            sessions.push(session);
        }
        links.push(link);
    }
    (links, sessions)
}

/// Puts all of them into the table of a ring, from slot 1 on.
fn register(ring: &mut TestRing, links: &[IterLink], sessions: &[IterSession]) {
    let links = links.iter().map(AsFd::as_fd);
    let all: Vec<BorrowedFd<'_>> = links.chain(sessions.iter().map(AsFd::as_fd)).collect();
    let slots: Vec<_> = all.into_iter().map(|fd| Some((fd, 0))).collect();
    ring.update_files(1, &slots).expect("update");
}

#[track_caller]
fn assert_freed(pins: &Pins, mut witness: PipeWitness) {
    witness.let_go();
    assert!(witness.released(SOON).expect("poll"), "the pipe is kept");
    pins.assert_back();
}

/// The session does not hold the link, and the ring's memory is used again.
fn no_other_ring_is_reached() -> Outcome {
    let pins = Pins::now();
    for round in 0..10 {
        let witness = PipeWitness::new()?;
        let ring = tomb(&witness);
        let (links, mut sessions) = looks(&ring);
        drop(links);
        drop(ring);
        let others: Vec<TestRing> = (0..64).map(|_| super::native::ring_of(2)).collect();
        for session in &mut sessions {
            for _ in 0..3 {
                assert_eq!(errno(session.read(&mut [0; 4096])), libc::ENXIO, "{round}");
            }
        }
        drop(others);
        assert_freed(&pins, witness);
    }
    done()
}

fn no_other_epoll_set_is_reached() -> Outcome {
    for _ in 0..10 {
        let set = set_of(10);
        let link = program("epoll").attach(&set)?;
        let mut sessions = [link.open()?, link.open()?];
        read(&mut sessions[1], &mut [0; 8]);
        drop(link);
        drop(set);
        let _others: Vec<EpollSet> = (0..64).map(|_| set_of(2)).collect();
        for session in &mut sessions {
            assert_eq!(errno(session.read(&mut [0; 64])), libc::ENXIO);
        }
    }
    done()
}

/// The ring is closed while its links and sessions are open: it goes at once.
fn a_dead_ring_is_not_kept() -> Outcome {
    let pins = Pins::now();
    let mut witness = PipeWitness::new()?;
    let ring = tomb(&witness);
    pins.assert_more(PAGES as i64);
    let (links, sessions) = looks(&ring);
    witness.let_go();
    let moment = std::time::Duration::from_millis(50);
    assert!(!witness.released(moment)?, "the ring has it");
    drop(ring);
    assert_freed(&pins, witness);
    for link in &links {
        assert_eq!(errno(link.open()), libc::ENXIO);
    }
    drop((links, sessions));
    done()
}

/// The same of an epoll set.
fn a_closed_set_is_not_kept() -> Outcome {
    let set = set_of(10);
    let link = program("epoll").attach(&set)?;
    let mut sessions = [link.open()?, link.open()?];
    read(&mut sessions[1], &mut [0; 8]);
    drop(set);
    assert_eq!(errno(link.open()), libc::ENXIO);
    for session in &mut sessions {
        assert_eq!(errno(session.read(&mut [0; 64])), libc::ENXIO);
    }
    done()
}

fn a_ring_that_holds_its_own_links() -> Outcome {
    let pins = Pins::now();
    let witness = PipeWitness::new()?;
    let mut ring = tomb(&witness);
    let (links, sessions) = looks(&ring);
    register(&mut ring, &links, &sessions);
    drop((links, sessions));
    pins.assert_more(PAGES as i64);
    drop(ring);
    assert_freed(&pins, witness);
    done()
}

fn rings_that_hold_the_links_of_each_other() -> Outcome {
    let pins = Pins::now();
    let witnesses = [PipeWitness::new()?, PipeWitness::new()?];
    let [mut one, mut two] = [tomb(&witnesses[0]), tomb(&witnesses[1])];
    let (of_one, of_two) = (looks(&one), looks(&two));
    register(&mut one, &of_two.0, &of_two.1);
    register(&mut two, &of_one.0, &of_one.1);
    drop((of_one, of_two));
    pins.assert_more(2 * PAGES as i64);
    drop((one, two));
    let [one, two] = witnesses;
    assert_freed(&pins, one);
    assert_freed(&pins, two);
    done()
}

/// The ring is in the set, and the set in the ring's table, with links and
/// sessions of both.
fn a_ring_a_set_and_links_of_both() -> Outcome {
    let pins = Pins::now();
    let witness = PipeWitness::new()?;
    let mut ring = tomb(&witness);
    let mut set = EpollSet::new()?;
    set.add(&ring, 1, 1)?;
    set.add(witness.end(), 4, 2)?;
    let (mut links, mut sessions) = looks(&ring);
    let link = program("epoll").attach(&set)?;
    sessions.push(link.open()?);
    links.push(link);
    for session in &sessions {
        let refused = set.add(session, 1, 3);
        assert_eq!(
            errno(refused),
            libc::EPERM,
            "what is to hold must not be held"
        );
    }
    register(&mut ring, &links, &sessions);
    ring.update_files(12, &[Some((set.as_fd(), 0))])?;
    drop((links, sessions, set));
    drop(ring);
    assert_freed(&pins, witness);
    done()
}

/// Neither by the link of a set nor by a session, wherever it is.
fn a_watched_file_is_not_kept() -> Outcome {
    for bytes in [0, 8, 64] {
        let mut witness = PipeWitness::new()?;
        let (reader, _writer) = rustix::pipe::pipe()?;
        let mut set = EpollSet::new()?;
        set.add(&reader, 1, 1)?;
        set.add(witness.end(), 4, 2)?;
        let link = program("epoll").attach(&set)?;
        let mut session = link.open()?;
        if bytes > 0 {
            read(&mut session, &mut vec![0; bytes]);
        }
        witness.let_go();
        assert!(witness.released(SOON)?, "after {bytes} bytes");
        let left = super::native::read_all(&mut link.open()?, 4096);
        assert_eq!((left.len(), left[1]), (2, 0), "one item, and the end");
    }
    done()
}
