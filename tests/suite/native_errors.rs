//! The table of errors of the native iterators, line by line: what the kernel
//! says to bare system calls, and what the library makes of it.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;

use rustix::fs::fstat;
use uring_bpf_iter::{Error, Link, RegisteredBuf};
use uring_testkit::{EpollSet, IterLink, IterProgram};

use super::native::{as_nobody, errno, program, ring, ring_of, RING_TARGETS};
use super::{done, Outcome};

native_trials![Any:
    link_infos_that_name_nothing,
    descriptors_of_something_else,
    lengths_and_pointers_that_do_not_fit,
    link_infos_of_every_good_length,
    a_ring_that_is_closed,
    an_epoll_set_that_is_closed,
    without_privilege,
    programs_that_sleep,
    a_link_of_a_ring_tells_its_inode,
    a_link_of_an_epoll_set_tells_its_number,
    the_library_names_each_refusal,
];

/// Each target, and something for it.
fn targets() -> [(&'static IterProgram, OwnedFd); 3] {
    let set = EpollSet::new().expect("epoll");
    let set = set.as_fd().try_clone_to_owned().expect("dup");
    let [buf, file] = RING_TARGETS.map(|target| {
        let ring = ring().as_fd().try_clone_to_owned().expect("dup");
        (program(target), ring)
    });
    [buf, file, (program("epoll"), set)]
}

fn link_infos_that_name_nothing() -> Outcome {
    for (program, _) in &targets() {
        assert_eq!(errno(program.attach_by(None, None)), libc::EBADF, "none");
        let zeroes = program.attach_by(Some(&[0; 16]), None);
        assert_eq!(errno(zeroes), libc::EBADF, "filled with zeroes");
        for number in [-1, -2, i32::MIN, i32::MAX, 1_000_000] {
            let info = number.to_ne_bytes();
            let attached = program.attach_by(Some(&info), None);
            assert_eq!(errno(attached), libc::EBADF, "{number}");
        }
    }
    done()
}

fn descriptors_of_something_else() -> Outcome {
    let (reader, writer) = rustix::pipe::pipe()?;
    let flags = rustix::event::EventfdFlags::CLOEXEC;
    let others: [OwnedFd; 5] = [
        reader,
        writer,
        File::open("/dev/null")?.into(),
        File::open("/")?.into(),
        // An anonymous inode, as those of rings and epoll sets are.
        rustix::event::eventfd(0, flags)?,
    ];
    let all = targets();
    for (program, right) in &all {
        let link = program.attach(right)?;
        for other in &others {
            assert_eq!(errno(program.attach(other)), libc::EOPNOTSUPP, "{other:?}");
        }
        assert_eq!(errno(program.attach(&link)), libc::EOPNOTSUPP, "a link");
    }
    let [(buf, ring), (file, _), (epoll, set)] = &all;
    assert_eq!(errno(buf.attach(set)), libc::EOPNOTSUPP);
    assert_eq!(errno(file.attach(set)), libc::EOPNOTSUPP);
    assert_eq!(errno(epoll.attach(ring)), libc::EOPNOTSUPP);
    done()
}

fn lengths_and_pointers_that_do_not_fit() -> Outcome {
    for (program, right) in &targets() {
        let number = right.as_raw_fd().to_ne_bytes();
        let pointer_alone = program.attach_by(Some(&number), Some(0));
        assert_eq!(errno(pointer_alone), libc::EINVAL);
        for len in [1, 4, 16] {
            assert_eq!(errno(program.attach_by(None, Some(len))), libc::EINVAL);
        }
        // What comes after all that the kernel knows, and is not zero.
        for at in [16, 17, 63] {
            let mut long = [0; 64];
            long[..4].copy_from_slice(&number);
            long[at] = 1;
            let refused = program.attach_by(Some(&long), None);
            assert_eq!(errno(refused), libc::E2BIG, "byte {at}");
        }
        let more_than_a_page = program.attach_by(Some(&[0; 8192]), None);
        assert_eq!(errno(more_than_a_page), libc::E2BIG);
    }
    done()
}

fn link_infos_of_every_good_length() -> Outcome {
    for (program, right) in &targets() {
        let mut long = [0; 64];
        long[..4].copy_from_slice(&right.as_raw_fd().to_ne_bytes());
        for len in [4, 8, 16, 17, 64] {
            let attached = program.attach_by(Some(&long[..len]), None);
            attached.unwrap_or_else(|e| panic!("{len} bytes: {e}"));
        }
        // Short ones are filled up with zeroes: here the number's upper half.
        let attached = program.attach_by(Some(&long[..2]), None);
        attached.expect("a number below 65,536 in two bytes");
    }
    done()
}

/// At iter_create and at every read, before and after the link is closed.
#[track_caller]
fn assert_gone(link: IterLink, mut sessions: [uring_testkit::IterSession; 2]) {
    for _ in 0..2 {
        assert_eq!(errno(link.open()), libc::ENXIO, "iter_create");
        for session in &mut sessions {
            assert_eq!(errno(session.read(&mut [0; 64])), libc::ENXIO, "read");
        }
    }
    drop(link);
    for session in &mut sessions {
        assert_eq!(errno(session.read(&mut [0; 64])), libc::ENXIO, "no link");
    }
}

/// A child of another trial, between fork(2) and execve(2), has every
/// descriptor: then the ring lives a moment longer.
fn wait_until_gone(link: &IterLink) {
    let start = std::time::Instant::now();
    while link.open().is_ok() {
        assert!(start.elapsed() < super::native::SOON, "somebody holds it");
        thread::yield_now();
    }
}

fn a_ring_that_is_closed() -> Outcome {
    for target in RING_TARGETS {
        let ring = ring_of(3);
        let link = program(target).attach(&ring)?;
        let mut sessions = [link.open()?, link.open()?];
        // One of them is in the middle, or at the end.
        super::native::read(&mut sessions[0], &mut [0; 8]);
        drop(ring);
        wait_until_gone(&link);
        assert_gone(link, sessions);
    }
    done()
}

fn an_epoll_set_that_is_closed() -> Outcome {
    let set = super::native::set_of(10);
    let link = program("epoll").attach(&set)?;
    let mut sessions = [link.open()?, link.open()?];
    super::native::read(&mut sessions[0], &mut [0; 8]);
    drop(set);
    wait_until_gone(&link);
    assert_gone(link, sessions);
    done()
}

fn without_privilege() -> Outcome {
    for (program, right) in &targets() {
        assert_eq!(errno(as_nobody(|| program.attach(right))), libc::EPERM);
        // Whoever is handed a link may use it.
        let link = program.attach(right)?;
        as_nobody(|| link.open()).expect("a session");
    }
    let ring = ring();
    let error = as_nobody(|| Link::<RegisteredBuf>::attach(&ring)).unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, Error::NoBackend { .. } | Error::NotPermitted { .. }),
        "{error:?}"
    );
    assert!(text.contains("CAP_"), "{text}");
    done()
}

/// Who sleeps with uring_lock, or with the lock of a set, keeps others waiting for
/// as long as somebody pleases to serve a page.
fn programs_that_sleep() -> Outcome {
    let names = [RING_TARGETS[0], RING_TARGETS[1], "epoll"];
    for (target, (program, right)) in names.into_iter().zip(&targets()) {
        let sleepable = IterProgram::load_sleepable(target)?;
        assert_eq!(errno(sleepable.attach(right)), libc::EINVAL, "{target}");
        let link = program.attach(right)?;
        assert_eq!(errno(link.update(&sleepable)), libc::EINVAL, "{target}");
        // It is as it was.
        link.update(program)?;
        assert_eq!(super::native::read_all(&mut link.open()?, 64), [0]);
    }
    done()
}

/// A line of the link's fdinfo.
fn told(link: &IterLink, key: &str) -> Option<u64> {
    let path = format!("/proc/self/fdinfo/{}", link.as_fd().as_raw_fd());
    let text = fs::read_to_string(path).expect("fdinfo");
    let value = text.lines().find_map(|line| line.strip_prefix(key));
    value.map(|value| value.trim().parse().expect("a number"))
}

fn a_link_of_a_ring_tells_its_inode() -> Outcome {
    for target in RING_TARGETS {
        let ring = ring();
        let link = program(target).attach(&ring)?;
        let inode = fstat(&ring)?.st_ino;
        for closed in [false, true] {
            let info = link.info()?;
            assert_eq!(info.target, target, "closed: {closed}");
            assert_eq!(info.words, [inode, 0], "closed: {closed}");
            assert_eq!(told(&link, "io_uring_inode:"), Some(inode));
            if !closed {
                // The descriptor alone, so that the borrow ends.
                assert_eq!(ring.inode(), Some(inode));
            }
        }
        drop(ring);
        assert_eq!(link.info()?.words[0], inode, "after the ring");
        assert_eq!(told(&link, "io_uring_inode:"), Some(inode));
    }
    done()
}

fn a_link_of_an_epoll_set_tells_its_number() -> Outcome {
    let (one, other) = (EpollSet::new()?, EpollSet::new()?);
    let program = program("epoll");
    let links = [
        program.attach(&one)?,
        program.attach(&one)?,
        program.attach(&other)?,
    ];
    let infos = [links[0].info()?, links[1].info()?, links[2].info()?];
    for (link, info) in links.iter().zip(&infos) {
        assert_eq!(info.target, "epoll");
        assert_eq!(info.words[0], fstat(&one)?.st_ino, "all sets share it");
        assert_eq!(told(link, "epoll_inode:"), Some(info.words[0]));
        assert_eq!(told(link, "epoll_id:"), Some(info.words[1]));
        assert_ne!(info.words[1], 0);
    }
    assert_eq!(infos[0].words[1], infos[1].words[1], "one set");
    assert_ne!(infos[0].words[1], infos[2].words[1], "two sets");
    assert_ne!(infos[0].id, infos[1].id, "two links");
    drop((one, other));
    assert_eq!(links[0].info()?, infos[0], "after the set");
    done()
}

fn the_library_names_each_refusal() -> Outcome {
    let file = File::open("/proc/self/exe")?;
    let error = Link::<RegisteredBuf>::attach(&file).unwrap_err();
    let raw = file.as_raw_fd();
    assert!(
        matches!(&error, Error::NotARing { pid, fd, .. } if (*pid, *fd) == (std::process::id(), raw)),
        "{error:?}"
    );
    let ring = ring_of(2);
    let inode = ring.inode().expect("an inode");
    let link = Link::<RegisteredBuf>::attach(&ring)?;
    let mut records = link.records()?;
    drop(ring);
    let start = std::time::Instant::now();
    let gone = |error: &Error| matches!(error, Error::RingGone { ring, .. } if *ring == inode);
    let error = loop {
        match link.records() {
            Err(error) => break error,
            Ok(_) => assert!(start.elapsed() < super::native::SOON),
        }
    };
    assert!(gone(&error), "{error:?}");
    let error = records.next_batch().map(drop).unwrap_err();
    assert!(gone(&error) && !error.is_retryable(), "{error:?}");
    assert_eq!(link.info()?.inode, inode, "the link stays");
    done()
}
