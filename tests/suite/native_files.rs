//! Registered files, by native iterators and by the walk of every kernel:
//! what each slot shows against what fstat(2), fcntl(2) and /proc say.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process;

use rustix::fs::{memfd_create, MemfdFlags};
use uring_bpf_iter::{Backend, Consistency, Error, FileIdentity, FileKind, UringFileIter};
use uring_testkit::{EpollSet, FileSlot, KnownFile, RingBuilder, TestRing};

use super::native::ring;
use super::oracle::has_native;
use super::skipped::skip;
use super::{done, Outcome};

trials![
    every_kind_of_file,
    every_shape_of_table,
    positions_are_those_of_lseek,
    one_file_or_two,
    descriptors_and_direct_descriptors,
    paths,
    a_million_files,
    fdinfo_cannot,
];

fn backends() -> impl Iterator<Item = Backend> {
    [Backend::Native, Backend::TaskFile]
        .into_iter()
        .filter(|backend| *backend != Backend::Native || has_native())
}

#[track_caller]
fn attach(backend: Backend, ring: &TestRing) -> UringFileIter {
    let options = UringFileIter::options().backend(backend);
    let attached = options.attach_pid(process::id(), ring.raw_fd());
    attached.unwrap_or_else(|e| panic!("{backend}: {e}"))
}

#[track_caller]
fn assert_file(seen: &FileIdentity, known: &KnownFile) {
    let context = format!("{seen:?}, registered: {known:?}");
    assert_eq!(seen.inode(), known.inode, "{context}");
    assert_eq!(seen.device(), known.device, "{context}");
    assert_eq!(u32::from(seen.mode()), known.mode, "{context}");
    let cloexec = libc::O_CLOEXEC as u32;
    assert_eq!(seen.flags() & !cloexec, known.flags, "{context}");
    assert_eq!(seen.kind(), kind(known), "{context}");
}

/// By the type in `st_mode`, and by name for what has none.
fn kind(known: &KnownFile) -> FileKind {
    match (known.mode & libc::S_IFMT, &*known.name) {
        (libc::S_IFREG, _) => FileKind::Regular,
        (libc::S_IFDIR, _) => FileKind::Directory,
        (libc::S_IFCHR, _) => FileKind::CharDevice,
        (libc::S_IFBLK, _) => FileKind::BlockDevice,
        (libc::S_IFIFO, _) => FileKind::Pipe,
        (libc::S_IFSOCK, _) => FileKind::Socket,
        (_, "anon_inode:[eventfd]") => FileKind::Eventfd,
        (_, "anon_inode:[eventpoll]") => FileKind::Epoll,
        (_, "anon_inode:[io_uring]") => FileKind::IoUring,
        (_, name) if name.starts_with("anon_inode:") => FileKind::AnonInode,
        (_, other) => panic!("{other}"),
    }
}

#[track_caller]
fn assert_reads(backend: Backend, iter: &mut UringFileIter, expected: &[Option<KnownFile>]) {
    let files = iter.snapshot().unwrap_or_else(|e| panic!("{backend}: {e}"));
    let consistency = match backend {
        Backend::Native => Consistency::Locked,
        _ => Consistency::Verified,
    };
    assert_eq!(files.backend(), backend);
    assert_eq!(files.consistency(), consistency, "{backend}");
    assert_eq!(files.len(), expected.len(), "{backend}: slots");
    for (i, (slot, known)) in files.iter().zip(expected).enumerate() {
        assert_eq!(slot.index(), i as u64, "{backend}");
        assert_eq!(slot.is_empty_slot(), known.is_none(), "{backend}, slot {i}");
        let Some(known) = known else {
            assert!(slot.file().is_none());
            assert_eq!(slot.tag(), 0);
            continue;
        };
        assert_eq!(slot.tag(), known.tag, "{backend}, slot {i}");
        assert_file(slot.file().expect("filled"), known);
    }
}

#[track_caller]
fn check(ring: &TestRing) {
    for backend in backends() {
        assert_reads(backend, &mut attach(backend, ring), ring.expected_files());
    }
}

fn all_kinds() -> Vec<OwnedFd> {
    let (reader, writer) = rustix::pipe::pipe().expect("pipe");
    let (socket, _) = std::os::unix::net::UnixStream::pair().expect("pair");
    let tcp = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("listen");
    let open = |path: &str| OwnedFd::from(File::open(path).expect(path));
    let append = File::options().append(true).open("/dev/null");
    let memory = memfd_create("a memfd", MemfdFlags::CLOEXEC).expect("memfd");
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK);
    let set = EpollSet::new().expect("epoll").as_fd().try_clone_to_owned();
    let inotify = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC);
    vec![
        open("/proc/self/exe"),
        open("/proc/self/status"),
        open("/"),
        open("/proc/self/fd"),
        open("/dev/null"),
        append.expect("open").into(),
        reader,
        writer,
        socket.into(),
        tcp.into(),
        memory,
        eventfd.expect("eventfd"),
        set.expect("dup"),
        inotify.expect("inotify"),
    ]
}

fn every_kind_of_file() -> Outcome {
    let files = all_kinds();
    let slots: Vec<FileSlot<'_>> = (100..)
        .zip(&files)
        .map(|(tag, file)| Some((file.as_fd(), tag)))
        .collect();
    let mut ring = ring();
    ring.register_files_tagged(&slots)?;
    let kinds: std::collections::HashSet<FileKind> =
        ring.expected_files().iter().flatten().map(kind).collect();
    // No block device; and a table holds no ring, not even another one.
    assert_eq!(kinds.len(), 8, "{kinds:?}");
    let other = super::native::ring();
    let refused = ring.update_files(3, &[Some((other.as_fd(), 0))]);
    assert_eq!(super::native::errno(refused), libc::EBADF);
    check(&ring);
    // Nothing changes when the ring is the only one that has them.
    drop(files);
    check(&ring);
    done()
}

fn every_shape_of_table() -> Outcome {
    let null = File::open("/dev/null")?;
    let (reader, _writer) = rustix::pipe::pipe()?;
    let mut ring = ring();
    check(&ring);
    let mut iters: Vec<_> = backends().map(|b| (b, attach(b, &ring))).collect();
    for slots in [1, 2, 63, 64, 65, 1000, 1025, 20, 5000] {
        ring.register_files_sparse(slots)?;
        for (n, slot) in [0, slots / 3, slots / 2, slots - 1].into_iter().enumerate() {
            let fd = if n % 2 == 0 {
                null.as_fd()
            } else {
                reader.as_fd()
            };
            ring.update_files(slot, &[Some((fd, n as u64))])?;
        }
        for (backend, iter) in &mut iters {
            assert_reads(*backend, iter, ring.expected_files());
        }
        ring.update_files(slots / 2, &[None])?;
        for (backend, iter) in &mut iters {
            assert_reads(*backend, iter, ring.expected_files());
        }
        ring.unregister_files()?;
        for (backend, iter) in &mut iters {
            assert_reads(*backend, iter, &[]);
        }
    }
    done()
}

fn positions_are_those_of_lseek() -> Outcome {
    let mut files = [File::open("/proc/self/exe")?, File::open("/proc/self/exe")?];
    let mut ring = ring();
    ring.register_files(&[files[0].as_fd(), files[1].as_fd()])?;
    for at in [0, 1, 12_345, 1 << 40] {
        files[1].seek(SeekFrom::Start(at))?;
        for backend in backends() {
            let mut iter = attach(backend, &ring);
            let seen = iter.snapshot()?;
            let positions = seen
                .iter()
                .map(|slot| slot.file().map(FileIdentity::position));
            assert_eq!(positions.collect::<Vec<_>>(), [Some(0), Some(at as i64)]);
        }
    }
    done()
}

fn one_file_or_two() -> Outcome {
    let (one, two) = (File::open("/dev/null")?, File::open("/dev/null")?);
    let dup = one.try_clone()?;
    let mut ring = ring();
    ring.register_files(&[one.as_fd(), two.as_fd(), dup.as_fd(), one.as_fd()])?;
    for backend in backends() {
        let mut iter = attach(backend, &ring);
        let seen = iter.snapshot()?;
        let file = |i: usize| seen[i].file().expect("filled");
        let same = [(0, 1), (0, 2), (0, 3), (1, 2)].map(|(a, b)| file(a).same_file(file(b)));
        assert_eq!(same, [false, true, true, false], "{backend}");
    }
    done()
}

fn descriptors_and_direct_descriptors() -> Outcome {
    let (kept, closed) = (File::open("/dev/null")?, File::open("/dev/null")?);
    let (dup, elsewhere) = (kept.try_clone()?, File::open("/dev/null")?);
    let mut ring = ring();
    ring.register_files_sparse(8)?;
    let slots = [Some((kept.as_fd(), 1)), Some((closed.as_fd(), 2))];
    ring.update_files(2, &slots)?;
    drop(closed);
    ring.open_direct("/proc/self/exe", 7)?;
    for backend in backends() {
        let mut iter = attach(backend, &ring);
        let descriptors = iter.descriptors()?;
        assert_eq!(descriptors.pid(), process::id());
        let seen = iter.snapshot()?;
        let of = |slot: usize| descriptors.of(seen[slot].file().expect("filled"));
        let mut both = [kept.as_raw_fd(), dup.as_raw_fd()];
        both.sort();
        assert_eq!(of(2), both, "{backend}");
        assert!(!of(2).contains(&elsewhere.as_raw_fd()));
        assert!(of(3).is_empty(), "{backend}: it was closed");
        assert!(of(7).is_empty(), "{backend}: it never had a number");
        let path = descriptors.path(seen[2].file().expect("filled"));
        assert_eq!(path.expect("it has one")?, Path::new("/dev/null"));
        assert!(descriptors.path(seen[7].file().expect("filled")).is_none());
    }
    done()
}

fn paths() -> Outcome {
    let dir = std::env::temp_dir().join(format!("uring-paths-{}", process::id()));
    fs::create_dir_all(&dir)?;
    let long = dir.join("n".repeat(200));
    let (deleted, named) = (File::create(dir.join("deleted"))?, File::create(&long)?);
    fs::remove_file(dir.join("deleted"))?;
    let (reader, _writer) = rustix::pipe::pipe()?;
    let mut ring = ring();
    ring.register_files_sparse(8)?;
    let slots = [&deleted.as_fd(), &named.as_fd(), &reader.as_fd()].map(|fd| Some((*fd, 0)));
    // The oracle's names are /proc's, which says of a deleted file that it is.
    ring.update_files(1, &slots)?;
    ring.open_direct(long.to_str().expect("UTF-8"), 5)?;
    let result = tell_paths(&ring);
    fs::remove_dir_all(&dir)?;
    result
}

fn tell_paths(ring: &TestRing) -> Outcome {
    let mut walk = attach(Backend::TaskFile, ring);
    let error = walk.path(1).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    if !has_native() {
        return skip("paths of registered files need a native iterator");
    }
    let mut iter = attach(Backend::Native, ring);
    for (index, known) in (0..).zip(ring.expected_files()) {
        let path = iter.path(index)?;
        let path = path.as_ref().map(|path| path.to_str().expect("UTF-8"));
        assert_eq!(
            path,
            known.as_ref().map(|known| &*known.name),
            "slot {index}"
        );
    }
    done()
}

/// As many as the kernel allows in a table, or this process: it says how many.
fn a_million_files() -> Outcome {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let nr = limit.current.unwrap_or(u64::MAX).min(1 << 20) as usize;
    let null = File::open("/dev/null")?;
    let mut ring = RingBuilder::new(8).build()?;
    ring.register_files(&vec![null.as_fd(); nr])?;
    let known = KnownFile::of(&null)?;
    for backend in backends() {
        let mut iter = attach(backend, &ring);
        let start = std::time::Instant::now();
        let files = iter.snapshot()?;
        println!(
            "{nr} registered files by {backend} in {:.1?}",
            start.elapsed()
        );
        assert_eq!(files.len(), nr);
        // More than a million do not fit under one hold of the lock.
        if backend == Backend::Native {
            let whole = nr <= 1_000_000;
            assert_eq!(files.consistency() == Consistency::Locked, whole);
            assert_eq!(files.consistency() == Consistency::Parts, !whole);
        }
        let first = files[0];
        assert_file(first.file().expect("filled"), &known);
        assert!((0..)
            .zip(files.iter())
            .all(|(i, slot)| slot.index() == i && slot.file() == first.file() && slot.tag() == 0));
    }
    done()
}

fn fdinfo_cannot() -> Outcome {
    let ring = ring();
    let options = UringFileIter::options().backend(Backend::Fdinfo);
    let error = options.attach(&ring).map(drop).unwrap_err();
    assert!(matches!(error, Error::NoBackend { .. }), "{error:?}");
    done()
}
