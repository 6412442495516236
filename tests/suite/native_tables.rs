//! What the library gives by native iterators, against what was registered and
//! what other ways give.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process;
use std::time::Instant;

use uring_bpf_iter::{
    Backend, BufPages, Consistency, EpollIter, Error, Link, Record, Records, RegisteredBuf,
    RegisteredFile, UringFileIter,
};
use uring_testkit::{loaded_programs, page_size, BufSpec, IterProgram, TestRing};
use zerocopy::IntoBytes;

use super::native::{program, ring, ring_of, SOON};
use super::oracle::{assert_reads, assert_ring, attach, kernel, listed, ranges, Way};
use super::run::workload;
use super::{done, Outcome};

native_trials![Any:
    all_ways_agree_on_quiet_rings,
    all_ways_agree_on_a_ring_of_another_process,
    records_of_buffers_by_any_size_of_read,
    records_of_files_by_any_size_of_read,
    the_largest_table_of_buffers,
    the_largest_table_of_files,
    a_pinned_link,
    a_pinned_link_of_a_stranger,
    the_form_of_the_programs,
];

/// Native, task-file walk and fdinfo, with what was registered. Each is loaded
/// once: that takes seconds in an emulated machine.
fn all_ways_agree_on_quiet_rings() -> Outcome {
    let mut ring = ring();
    let (pid, fd) = (process::id(), ring.raw_fd());
    let mut ways: Vec<_> = Way::all().map(|way| (way, attach(way, pid, fd))).collect();
    assert!(ways.iter().any(|(way, _)| *way == Way::Native));
    let mut check = |ring: &TestRing| {
        assert_eq!(
            listed(pid, fd),
            ranges(ring.expected()),
            "kernel's own text"
        );
        for (way, iter) in &mut ways {
            assert_reads(*way, iter, ring.expected());
        }
    };
    check(&ring);
    for slots in [1, 64, 1000] {
        ring.register(&vec![BufSpec::new(page_size()); slots])?;
        check(&ring);
        ring.unregister()?;
        ring.register_sparse(slots as u32)?;
        check(&ring);
        for (n, slot) in [0, slots / 2, slots - 1].into_iter().enumerate() {
            let spec = BufSpec::new(5000 * n + 1).at(100 * n).tagged(n as u64);
            ring.update(slot as u32, &[Some(spec)])?;
        }
        check(&ring);
        ring.drop_mapping();
        check(&ring);
        ring.unregister()?;
        check(&ring);
    }
    done()
}

fn all_ways_agree_on_a_ring_of_another_process() -> Outcome {
    let load = workload("--rings 1 --bufs 40 --len 5000 --offset 77 --tag 5 --sparse 120");
    let report = &load.report().rings[0];
    assert_ring(
        load.pid(),
        report.fd.expect("a descriptor"),
        &report.expected(),
    );
    done()
}

/// All bytes that a session gives, `step` a read.
fn bytes<R: Record>(records: &Records<R>, step: usize) -> Vec<u8> {
    let fd = records.as_fd().try_clone_to_owned().expect("dup");
    let (mut file, mut all, mut buf) = (File::from(fd), Vec::new(), vec![0; step]);
    let start = Instant::now();
    loop {
        match file.read(&mut buf) {
            Ok(0) => return all,
            Ok(n) => all.extend_from_slice(&buf[..n]),
            Err(e) if e.raw_os_error() == Some(libc::EDEADLK) => {
                assert!(start.elapsed() < SOON, "the lock was never free");
                std::thread::yield_now();
            }
            Err(e) => panic!("read: {e}"),
        }
    }
}

/// Streams of bytes in reads of any size, batches, and a snapshot.
#[track_caller]
fn assert_one_content<R: Record>(link: &Link<R>, snapshot: &[R]) {
    let session = || link.records().expect("session");
    let whole = bytes(&session(), 1 << 20);
    let (records_of_it, end) = whole.split_at(whole.len() - size_of::<R>());
    assert!(
        records_of_it == snapshot.as_bytes(),
        "a snapshot is the same"
    );
    assert!(end.iter().all(|&byte| byte == 0xff), "the end: {end:?}");
    for step in [1, 7, size_of::<R>(), 1000] {
        assert!(bytes(&session(), step) == whole, "{step} bytes a read");
    }
    let (mut records, mut batches) = (session(), Vec::new());
    while let Some(batch) = records.next_batch().expect("batch") {
        batches.extend_from_slice(batch);
    }
    assert!(batches.as_bytes() == records_of_it, "and so are batches");
    assert!(
        records.next_batch().expect("batch").is_none(),
        "an end is an end"
    );
}

fn records_of_buffers_by_any_size_of_read() -> Outcome {
    let mut ring = ring();
    ring.register_sparse(200)?;
    for slot in (0..200).step_by(3) {
        let spec = BufSpec::new(100 + slot).at(slot).tagged(slot as u64);
        ring.update(slot as u32, &[Some(spec)])?;
    }
    let mut iter = Way::Native.options().attach(&ring)?;
    assert_reads(Way::Native, &mut iter, ring.expected());
    assert_one_content(&Link::<RegisteredBuf>::attach(&ring)?, &iter.snapshot()?);
    done()
}

fn records_of_files_by_any_size_of_read() -> Outcome {
    let (null, exe) = (File::open("/dev/null")?, File::open("/proc/self/exe")?);
    let mut ring = ring();
    ring.register_files_sparse(200)?;
    for slot in (0..200).step_by(3) {
        let file = if slot % 2 == 0 { &null } else { &exe };
        ring.update_files(slot, &[Some((file.as_fd(), u64::from(slot)))])?;
    }
    let options = UringFileIter::options().backend(Backend::Native);
    let mut iter = options.attach(&ring)?;
    let seen = iter.snapshot()?;
    let inodes = seen.iter().map(|slot| slot.file().map(|file| file.inode()));
    let known = ring.expected_files().iter();
    assert!(inodes.eq(known.map(|slot| slot.as_ref().map(|file| file.inode))));
    assert_one_content(&Link::<RegisteredFile>::attach(&ring)?, &seen);
    done()
}

fn the_largest_table_of_buffers() -> Outcome {
    let mut ring = ring_of(16_384);
    ring.drop_mapping();
    let mut iter = Way::Native.options().attach(&ring)?;
    assert_reads(Way::Native, &mut iter, ring.expected());
    assert_eq!(iter.snapshot()?.consistency(), Consistency::Locked);
    let seen = super::native::read_all(&mut program("io_uring_buf").attach(&ring)?.open()?, 4096);
    assert_eq!(seen, (0..=16_384).collect::<Vec<_>>());
    assert_eq!(ring.expected().len() * page_size(), 64 << 20);
    done()
}

/// As many as the kernel allows in a table, or this process: it says how many.
fn the_largest_table_of_files() -> Outcome {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let nr = limit.current.unwrap_or(u64::MAX).min(1 << 20);
    let null = File::open("/dev/null")?;
    let mut ring = ring();
    ring.register_files(&vec![null.as_fd(); nr as usize])?;
    let options = UringFileIter::options().backend(Backend::Native);
    let mut iter = options.attach(&ring)?;
    let start = Instant::now();
    let files = iter.snapshot()?;
    println!("{nr} registered files in {:.1?}", start.elapsed());
    assert_eq!(files.len() as u64, nr);
    assert_eq!(files.consistency(), Consistency::Locked);
    let inode = null.metadata()?.ino();
    let whole = (0..).zip(files.iter()).all(|(at, slot)| {
        slot.index() == at && slot.file().is_some_and(|file| file.inode() == inode)
    });
    assert!(whole);
    done()
}

/// A link of the right iterator, with a program that is not ours: it must not be
/// read as a table, least of all as an empty one, nor for ever.
fn a_pinned_link_of_a_stranger() -> Outcome {
    let ring = ring_of(6);
    let strangers = [
        ("silent", IterProgram::load_silent("io_uring_buf", 0)?),
        ("stubborn", IterProgram::load_silent("io_uring_buf", 1)?),
        ("numbers", IterProgram::load("io_uring_buf")?),
    ];
    for (name, program) in strangers {
        let path = format!("/sys/fs/bpf/uring-suite-{name}-{}", process::id());
        program.attach(&ring)?.pin(&path)?;
        let link = Link::<RegisteredBuf>::open_pinned(&path);
        std::fs::remove_file(&path)?;
        let error = link?.records()?.next_batch().map(drop).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{name}: {error}");
    }
    done()
}

/// It outlives the descriptor, and does not outlive the ring for long.
fn a_pinned_link() -> Outcome {
    let ring = ring_of(3);
    let path = format!("/sys/fs/bpf/uring-suite-{}", process::id());
    let link = Link::<RegisteredBuf>::attach(&ring)?;
    link.pin(&path)?;
    let info = link.info()?;
    drop(link);
    let again = Link::<RegisteredBuf>::open_pinned(&path);
    std::fs::remove_file(&path)?;
    let again = again?;
    assert_eq!(again.info()?, info);
    assert_eq!(info.target, "io_uring_buf");
    assert_eq!((Some(info.inode), info.ep_id), (ring.inode(), None));
    let mut records = again.records()?;
    assert_eq!(records.next_batch()?.map(<[_]>::len), Some(3));
    assert!(records.next_batch()?.is_none());
    done()
}

/// That of kernels before 6.9 runs on later ones as well, with the same results: that a
/// kernel refuses the other one shows nowhere else.
fn the_form_of_the_programs() -> Outcome {
    let ring = ring_of(3);
    let set = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC)?;
    let native = Backend::Native;
    let _all = (
        Way::Native.options().attach(&ring)?,
        UringFileIter::options().backend(native).attach(&ring)?,
        BufPages::options().backend(native).attach(&ring)?,
        EpollIter::options().backend(native).attach(&set)?,
    );
    let programs = loaded_programs()?;
    let loaded = |name| programs.iter().filter(|program| *program == name).count();
    // The kernel keeps 15 bytes of a name.
    let (direct, compat) = (loaded("dump_native"), loaded("dump_native_com"));
    let (used, unused) = match kernel() >= (6, 9) {
        true => (direct, compat),
        false => (compat, direct),
    };
    assert!(used >= 4, "{programs:?}");
    assert_eq!(unused, 0, "{programs:?}");
    done()
}
