//! Tables of registered files, against what fstat(2) and /proc say of the
//! files that were put into them.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::process::{getrlimit, setrlimit, Resource};
use uring_bpf_iter::{
    Backend, Consistency, DescriptorReader, Error, FileKind, RegisteredFile, Result, Retry,
    Snapshot, UringFileIter,
};
use uring_testkit::{EpollSet, KnownFile, RingBuilder, TestRing};

use super::oracle::{error_at_last, has_native, Way, LOCKED};
use super::run::{idle_process, workload};
use super::{done, Outcome};

trials![
    files_of_every_kind,
    sparse_tables_and_tags,
    direct_descriptors_have_no_number,
    descriptors_of_the_owner,
    descriptors_of_one_process_after_another,
    paths_by_descriptor_and_by_the_kernel,
    a_number_that_another_file_took_has_no_path,
    positions_are_those_of_now,
    a_table_that_changes,
    no_table_of_files,
    the_largest_table_that_fits,
    a_busy_file_does_not_disturb,
    fdinfo_cannot,
    of_another_process,
];

/// The ways that this kernel has, but fdinfo, which knows no files.
fn ways() -> Vec<Way> {
    Way::all().filter(|way| *way != Way::Fdinfo).collect()
}

fn open(way: Way, ring: &TestRing) -> UringFileIter {
    UringFileIter::options()
        .backend(way.backend())
        .attach(ring)
        .unwrap_or_else(|e| panic!("{way:?}: {e}"))
}

fn snapshot(way: Way, iter: &mut UringFileIter) -> Result<Snapshot<'_, RegisteredFile>> {
    match way {
        Way::Locked => iter.snapshot_locked(LOCKED),
        _ => iter.snapshot(),
    }
}

#[track_caller]
fn assert_files(ring: &TestRing) {
    for way in ways() {
        let mut iter = open(way, ring);
        assert_table(
            way,
            &snapshot(way, &mut iter).unwrap(),
            ring.expected_files(),
        );
    }
}

#[track_caller]
fn assert_table(way: Way, seen: &Snapshot<'_, RegisteredFile>, expected: &[Option<KnownFile>]) {
    let consistency = match way {
        Way::TaskFile => Consistency::Verified,
        _ => Consistency::Locked,
    };
    assert_eq!(seen.consistency(), consistency, "{way:?}");
    assert_eq!(seen.len(), expected.len(), "{way:?}: slots");
    for (i, (slot, want)) in seen.iter().zip(expected).enumerate() {
        let context = || format!("{way:?}, slot {i}: {slot:?}, registered: {want:?}");
        assert_eq!(slot.index(), i as u64, "{}", context());
        assert_eq!(slot.is_empty_slot(), want.is_none(), "{}", context());
        let Some(want) = want else {
            assert!(slot.file().is_none() && slot.tag() == 0, "{}", context());
            continue;
        };
        let file = slot.file().expect("a file");
        assert_eq!(slot.tag(), want.tag, "{}", context());
        assert_eq!(file.inode(), want.inode, "{}", context());
        assert_eq!(file.device(), want.device, "{}", context());
        assert_eq!(u32::from(file.mode()), want.mode, "{}", context());
        assert_eq!(
            file.flags() & !FMODE_MASK,
            want.flags & !FMODE_MASK,
            "{}",
            context()
        );
        assert_eq!(file.kind(), kind(want), "{}", context());
    }
}

/// O_LARGEFILE is set inside of the kernel, and shown by F_GETFL or not.
pub(super) const FMODE_MASK: u32 = 0o100000;

/// By what /proc calls it, and by its mode.
pub(super) fn kind(known: &KnownFile) -> FileKind {
    match &*known.name {
        "anon_inode:[eventfd]" => FileKind::Eventfd,
        "anon_inode:[eventpoll]" => FileKind::Epoll,
        "anon_inode:[io_uring]" => FileKind::IoUring,
        name if name.starts_with("anon_inode:") => FileKind::AnonInode,
        _ => match known.mode & libc::S_IFMT {
            libc::S_IFREG => FileKind::Regular,
            libc::S_IFDIR => FileKind::Directory,
            libc::S_IFCHR => FileKind::CharDevice,
            libc::S_IFBLK => FileKind::BlockDevice,
            libc::S_IFIFO => FileKind::Pipe,
            libc::S_IFSOCK => FileKind::Socket,
            other => panic!("mode {other:#o}"),
        },
    }
}

fn ring() -> TestRing {
    RingBuilder::new(8).build().expect("a ring")
}

fn borrowed<F: AsFd>(files: &[F]) -> Vec<BorrowedFd<'_>> {
    files.iter().map(AsFd::as_fd).collect()
}

fn files_of_every_kind() -> Outcome {
    let (pipe, _writer) = rustix::pipe::pipe()?;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0");
    let (unix, _peer) = std::os::unix::net::UnixStream::pair()?;
    let epoll = EpollSet::new()?;
    let other_ring = ring();
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty())?;
    let pidfd = rustix::process::pidfd_open(
        rustix::process::getpid(),
        rustix::process::PidfdFlags::empty(),
    )?;
    let memory = tempfile()?;
    let (null, dir) = (File::open("/dev/null")?, File::open("/")?);
    let mut files = vec![
        memory.as_fd(),
        null.as_fd(),
        dir.as_fd(),
        pipe.as_fd(),
        unix.as_fd(),
        eventfd.as_fd(),
        epoll.as_fd(),
        other_ring.as_fd(),
        pidfd.as_fd(),
    ];
    // The guest may be without a network.
    files.extend(socket.iter().map(AsFd::as_fd));
    let mut ring = ring();
    // io_uring refuses to register a ring in a ring before 6.0 or so, and
    // anything that it refuses is none of our business.
    files.retain(|file| {
        let mut probe = RingBuilder::new(8).build().expect("a ring");
        probe.register_files(&[*file]).is_ok()
    });
    assert!(
        files.len() >= 7,
        "only {} kinds could be registered",
        files.len()
    );
    ring.register_files(&files)?;
    assert_files(&ring);
    done()
}

/// A regular file without a name.
fn tempfile() -> std::io::Result<File> {
    let name = format!("uring-suite-files-{}", std::process::id());
    let fd = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::empty())?;
    Ok(File::from(fd))
}

fn sparse_tables_and_tags() -> Outcome {
    let mut ring = ring();
    ring.register_files_sparse(1000)?;
    assert_files(&ring);
    let (null, zero) = (File::open("/dev/null")?, File::open("/dev/zero")?);
    ring.update_files(
        513,
        &[
            Some((null.as_fd(), 7)),
            None,
            Some((zero.as_fd(), u64::MAX)),
        ],
    )?;
    ring.update_files(999, &[Some((null.as_fd(), 0))])?;
    assert_files(&ring);
    done()
}

fn direct_descriptors_have_no_number() -> Outcome {
    let mut ring = ring();
    ring.register_files_sparse(4)?;
    ring.open_direct("/proc/self/status", 2)?;
    let kept = File::open("/dev/null")?;
    ring.update_files(3, &[Some((kept.as_fd(), 0))])?;
    for way in ways() {
        let mut iter = open(way, &ring);
        let descriptors = iter.descriptors()?;
        assert_eq!(descriptors.tid(), std::process::id());
        let seen = snapshot(way, &mut iter)?;
        let [_, _, direct, other] = seen.records() else {
            panic!("{seen:?}");
        };
        let direct = direct.file().expect("the direct descriptor");
        assert_eq!(descriptors.of(direct), [] as [i32; 0], "{way:?}");
        assert!(descriptors.path(direct).is_none(), "{way:?}");
        let other = other.file().expect("the other file");
        assert_eq!(descriptors.of(other), [kept.as_raw_fd()], "{way:?}");
        assert!(!direct.same_file(other) && other.same_file(other));
    }
    done()
}

fn descriptors_of_the_owner() -> Outcome {
    let first = File::open("/dev/null")?;
    let (second, third) = (first.try_clone()?, first.try_clone()?);
    let stranger = File::open("/dev/null")?;
    let mut ring = ring();
    ring.register_files(&borrowed(&[second.as_fd(), stranger.as_fd()]))?;
    let mut fds = [&first, &second, &third].map(AsRawFd::as_raw_fd);
    fds.sort();
    for way in ways() {
        let mut iter = open(way, &ring);
        let descriptors = iter.descriptors()?;
        let seen = snapshot(way, &mut iter)?;
        let files: Vec<_> = seen.iter().filter_map(RegisteredFile::file).collect();
        assert_eq!(descriptors.of(files[0]), fds, "{way:?}");
        // The same path, but another file.
        assert_eq!(files[0].inode(), files[1].inode());
        assert_eq!(descriptors.of(files[1]), [stranger.as_raw_fd()], "{way:?}");
    }
    done()
}

/// By one reader, which first meets more descriptors than it has room for.
fn descriptors_of_one_process_after_another() -> Outcome {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(20_000);
    limit.maximum = limit.maximum.map(|most| most.max(20_000));
    setrlimit(Resource::Nofile, limit)?;
    let first = File::open("/dev/null")?;
    let copies = (0..1500)
        .map(|_| first.try_clone())
        .collect::<std::io::Result<Vec<_>>>()?;
    let mut fds: Vec<_> = [&first].into_iter().chain(&copies).collect();
    fds.sort_by_key(|file| file.as_raw_fd());
    let fds: Vec<_> = fds.into_iter().map(AsRawFd::as_raw_fd).collect();
    let mut ring = ring();
    ring.register_files(&[first.as_fd()])?;
    let slots = open(Way::TaskFile, &ring).snapshot()?.to_vec();
    let file = slots[0].file().expect("a file");
    let mut reader = DescriptorReader::new()?;
    let (own, other) = (std::process::id(), idle_process());
    let ended = other.0.id();
    assert_eq!(reader.read(own)?.of(file), fds);
    let none = reader.read(ended)?;
    assert_eq!((none.tid(), none.of(file)), (ended, &[][..]));
    drop(other);
    assert_eq!(reader.read(ended)?.of(file), [] as [i32; 0]);
    assert_eq!(reader.read(own)?.of(file), fds);
    done()
}

fn paths_by_descriptor_and_by_the_kernel() -> Outcome {
    let path = std::env::temp_dir().join(format!("uring-suite-path-{}", std::process::id()));
    let file = File::create(&path)?;
    let mut ring = ring();
    ring.register_files_sparse(3)?;
    ring.update_files(1, &[Some((file.as_fd(), 0))])?;
    ring.open_direct("/proc/self/status", 2)?;
    let inside = ring.expected_files()[2].clone().expect("a file").name;
    let look = |want: &str| -> Outcome {
        let mut iter = open(Way::TaskFile, &ring);
        let descriptors = iter.descriptors()?;
        let slots = iter.snapshot()?.to_vec();
        let by_link = descriptors.path(slots[1].file().expect("a file"));
        assert_eq!(by_link.expect("a descriptor")?.to_str(), Some(want));
        let error = iter.path(1).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        if has_native() {
            let mut iter = open(Way::Native, &ring);
            assert_eq!(iter.path(0)?, None);
            assert_eq!(iter.path(1)?.as_deref(), Some(want.as_ref()));
            assert_eq!(iter.path(2)?.as_deref(), Some((*inside).as_ref()));
            assert_eq!(iter.path(3)?, None, "beyond the table");
        }
        done()
    };
    look(path.to_str().expect("UTF-8"))?;
    fs::remove_file(&path)?;
    look(&format!("{} (deleted)", path.display()))?;
    done()
}

/// The registered file has lost its descriptor since these were listed.
fn a_number_that_another_file_took_has_no_path() -> Outcome {
    let (path, other) = (std::env::current_exe()?, File::open("/dev/null")?);
    let mut file = std::os::fd::OwnedFd::from(File::open(&path)?);
    let mut ring = ring();
    ring.register_files(&[file.as_fd()])?;
    let mut iter = open(Way::TaskFile, &ring);
    let descriptors = iter.descriptors()?;
    let slots = iter.snapshot()?.to_vec();
    let tell = || descriptors.path(slots[0].file().expect("a file"));
    assert_eq!(tell().expect("a descriptor")?, path);
    rustix::io::dup2(&other, &mut file)?;
    let error = tell().expect("a descriptor once").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    done()
}

fn positions_are_those_of_now() -> Outcome {
    let mut file = tempfile()?;
    file.write_all(b"some text")?;
    let mut ring = ring();
    ring.register_files(&[file.as_fd()])?;
    for position in [9, 3, 1 << 40] {
        file.seek(SeekFrom::Start(position))?;
        for way in ways() {
            let mut iter = open(way, &ring);
            let seen = snapshot(way, &mut iter)?;
            let file = seen[0].file().expect("a file");
            assert_eq!(file.position() as u64, position, "{way:?}");
        }
    }
    done()
}

fn a_table_that_changes() -> Outcome {
    let mut ring = ring();
    let mut iters: Vec<_> = (ways().into_iter())
        .map(|way| (way, open(way, &ring)))
        .collect();
    let null = File::open("/dev/null")?;
    for slots in [1usize, 3, 2000, 0, 5] {
        if ring.nr_files() > 0 {
            ring.unregister_files()?;
        }
        if slots > 0 {
            ring.register_files(&vec![null.as_fd(); slots])?;
        }
        for (way, iter) in &mut iters {
            assert_table(*way, &snapshot(*way, iter)?, ring.expected_files());
        }
    }
    let (pid, inode) = (std::process::id(), ring.inode());
    drop(ring);
    for (way, iter) in &mut iters {
        let error = error_at_last(|| snapshot(*way, iter).map(drop));
        assert!(
            matches!(&error, Error::RingGone { ring, .. } if Some(*ring) == inode),
            "{way:?} of {pid}: {error}"
        );
    }
    done()
}

fn no_table_of_files() -> Outcome {
    let ring = ring();
    assert_files(&ring);
    assert_eq!(ring.expected_files().len(), 0);
    done()
}

/// As large as the limit of descriptors lets a table be, but for a start not
/// larger than 200,000 slots: the iterators read a million in a test of their own.
fn the_largest_table_that_fits() -> Outcome {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let slots = limit.current.unwrap_or(u64::MAX).min(200_000) as usize;
    let null = File::open("/dev/null")?;
    let mut ring = ring();
    ring.register_files(&vec![null.as_fd(); slots])?;
    assert_files(&ring);
    done()
}

/// Who reads and writes a file moves its position without uring_lock.
fn a_busy_file_does_not_disturb() -> Outcome {
    let mut file = tempfile()?;
    let mut ring = ring();
    ring.register_files(&[file.as_fd()])?;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut position = 0;
            while !stop.load(relaxed) {
                position += 1;
                file.seek(SeekFrom::Start(position)).expect("seek");
            }
        });
        let retry = Retry {
            deadline: Duration::from_secs(20),
            ..Retry::default()
        };
        let mut iter = UringFileIter::options()
            .backend(Backend::TaskFile)
            .retry(retry)
            .attach(&ring)
            .expect("attach");
        let looks: Vec<_> = (0..50)
            .map(|_| iter.snapshot().map(|seen| seen.len()))
            .collect();
        stop.store(true, relaxed);
        assert!(looks.iter().all(|look| matches!(look, Ok(1))), "{looks:?}");
    });
    done()
}

fn fdinfo_cannot() -> Outcome {
    let ring = ring();
    let error = UringFileIter::options()
        .backend(Backend::Fdinfo)
        .attach(&ring)
        .map(drop)
        .unwrap_err();
    assert!(matches!(error, Error::NoBackend { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("fdinfo does not show the identity of registered files"),
        "{error}"
    );
    done()
}

fn of_another_process() -> Outcome {
    let load = workload("--rings 1 --files 17");
    let fd = load.report().rings[0].fd.expect("a descriptor");
    for way in ways() {
        let mut iter = UringFileIter::options()
            .backend(way.backend())
            .attach_pid(load.pid(), fd)?;
        let descriptors = iter.descriptors()?;
        assert_eq!(descriptors.tid(), load.pid());
        let seen = snapshot(way, &mut iter)?;
        assert_eq!(seen.len(), 17, "{way:?}");
        for slot in seen.iter() {
            let file = slot.file().expect("a file");
            assert_eq!(file.kind(), FileKind::CharDevice, "{way:?}");
        }
    }
    let idle = idle_process();
    let error = UringFileIter::attach_pid(idle.0.id(), 0)
        .map(drop)
        .unwrap_err();
    assert!(matches!(error, Error::NotARing { fd: 0, .. }), "{error}");
    done()
}
