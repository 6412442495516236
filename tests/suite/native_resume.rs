//! Reads of any size give the same bytes; a session goes on where it was, in
//! whatever is there by then; the end stays the end.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::time::Instant;

use uring_bpf_iter::{Link, RegisteredBuf};
use uring_testkit::{BufSpec, FileSlot, IterLink, TestRing};
use zerocopy::FromBytes;

use super::native::{program, read, read_all, read_up_to, ring, SOON};
use super::{done, Outcome};

native_trials![Any:
    buffers_by_any_size_of_read,
    files_by_any_size_of_read,
    a_table_that_is_another,
    a_table_of_files_that_is_another,
    what_is_shown_is_what_is_there_by_then,
    the_end_stays_the_end,
];

/// Sizes that cut numbers in the middle, fit, or take all at once.
const STEPS: [usize; 7] = [1, 3, 7, 8, 9, 100, 64 * 1024];

#[track_caller]
pub(super) fn assert_all_sizes(link: &IterLink) -> Vec<u64> {
    let whole = read_all(&mut link.open().expect("session"), 1 << 20);
    for step in STEPS {
        let seen = read_up_to(&mut link.open().expect("session"), step, whole.len());
        assert_eq!(seen, whole, "{step} bytes a read");
    }
    whole
}

fn buffers_by_any_size_of_read() -> Outcome {
    let mut ring = ring();
    let link = program("io_uring_buf").attach(&ring)?;
    assert_eq!(assert_all_sizes(&link), [0], "no table");
    ring.register_sparse(300)?;
    assert_eq!(assert_all_sizes(&link), (0..=300).collect::<Vec<_>>());
    for slot in [0, 1, 77, 299] {
        ring.update(slot, &[Some(BufSpec::new(100))])?;
    }
    assert_eq!(assert_all_sizes(&link), (0..=300).collect::<Vec<_>>());
    ring.unregister()?;
    assert_eq!(assert_all_sizes(&link), [0], "no table any more");
    done()
}

fn files_by_any_size_of_read() -> Outcome {
    let mut ring = ring();
    let link = program("io_uring_file").attach(&ring)?;
    assert_eq!(assert_all_sizes(&link), [0], "no table");
    let (reader, writer) = rustix::pipe::pipe()?;
    let slot = |i: u64| -> FileSlot<'_> {
        match i % 3 {
            0 => None,
            1 => Some((reader.as_fd(), i)),
            _ => Some((writer.as_fd(), 0)),
        }
    };
    let slots: Vec<FileSlot<'_>> = (0..300).map(slot).collect();
    ring.register_files_tagged(&slots)?;
    ring.open_direct("/proc/self/exe", 3)?;
    assert_eq!(assert_all_sizes(&link), (0..=300).collect::<Vec<_>>());
    done()
}

/// Sessions that have read so many elements of a table of ten.
fn sessions(link: &IterLink) -> [uring_testkit::IterSession; 3] {
    [0, 5, 11].map(|nr| {
        let mut session = link.open().expect("session");
        for at in 0..nr {
            let mut number = [0; 8];
            assert_eq!(read(&mut session, &mut number).0, 8);
            assert_eq!(u64::from_ne_bytes(number), at);
        }
        session
    })
}

/// The same rules for both tables: `table` makes one of that size.
fn goes_on(mut ring: TestRing, target: &str, table: fn(&mut TestRing, usize)) {
    table(&mut ring, 10);
    let link = program(target).attach(&ring).expect("attach");
    for size in [10, 30, 7, 5, 3, 1, 0] {
        let mut all = sessions(&link);
        table(&mut ring, size);
        let size = size as u64;
        let [fresh, middle, ended] = &mut all;
        assert_eq!(read_all(fresh, 8), (0..=size).collect::<Vec<_>>());
        let rest: Vec<u64> = if size > 5 {
            (5..=size).collect()
        } else {
            vec![size]
        };
        assert_eq!(read_all(middle, 1), rest, "from 10 to {size}");
        assert!(read_all(ended, 8).is_empty(), "the end stays the end");
        table(&mut ring, 10);
        for session in &mut all {
            assert!(read_all(session, 8).is_empty(), "also when it grows again");
        }
    }
}

fn a_table_that_is_another() -> Outcome {
    goes_on(ring(), "io_uring_buf", |ring, size| {
        if !ring.expected().is_empty() {
            ring.unregister().expect("unregister");
        }
        if size > 0 {
            ring.register(&vec![BufSpec::new(64); size])
                .expect("register");
        }
    });
    done()
}

fn a_table_of_files_that_is_another() -> Outcome {
    goes_on(ring(), "io_uring_file", |ring, size| {
        if ring.nr_files() > 0 {
            ring.unregister_files().expect("unregister");
        }
        if size > 0 {
            ring.register_files_sparse(size as u32).expect("register");
        }
    });
    done()
}

/// The same index of another table: its address, its length, its tag.
fn what_is_shown_is_what_is_there_by_then() -> Outcome {
    let size = size_of::<RegisteredBuf>();
    let table = |base: usize| -> Vec<BufSpec> {
        let spec = |i: usize| BufSpec::new(base + i).at(i).tagged((base + i) as u64);
        (0..10).map(spec).collect()
    };
    let mut ring = ring();
    ring.register_tagged(&table(1000))?;
    let link = Link::<RegisteredBuf>::attach(&ring)?;
    let mut records = File::from(link.records()?.as_fd().try_clone_to_owned()?);
    let mut all = vec![0; 10 * size];
    let (before, after) = all.split_at_mut(4 * size);
    // Other trials may look at this ring; then it is tried again.
    fill(&mut records, before);
    let mut expected: Vec<_> = ring.expected()[..4].to_vec();
    ring.unregister()?;
    ring.register_tagged(&table(2000))?;
    fill(&mut records, after);
    expected.extend(&ring.expected()[4..]);
    for (i, (bytes, want)) in all.chunks(size).zip(expected).enumerate() {
        let seen = RegisteredBuf::read_from_bytes(bytes).expect("a record");
        let want = want.expect("filled");
        assert_eq!(seen.index(), i as u64);
        assert_eq!((seen.addr(), seen.len()), (want.addr, want.len), "slot {i}");
        assert_eq!(seen.tag(), Some(want.tag), "slot {i}");
    }
    let mut end = vec![0; size];
    fill(&mut records, &mut end);
    assert!(end.iter().all(|&byte| byte == 0xff), "the end: {end:?}");
    assert_eq!(records.read(&mut [0; 64])?, 0, "and nothing after it");
    done()
}

/// Reads so much, however often the lock is taken.
#[track_caller]
fn fill(file: &mut File, mut bytes: &mut [u8]) {
    let start = Instant::now();
    while !bytes.is_empty() {
        match file.read(bytes) {
            Ok(0) => panic!("the end"),
            Ok(n) => bytes = &mut bytes[n..],
            Err(e) => assert_eq!(e.raw_os_error(), Some(libc::EDEADLK)),
        }
        assert!(start.elapsed() < SOON, "the lock was never free");
    }
}

fn the_end_stays_the_end() -> Outcome {
    let mut ring = ring();
    let link = program("io_uring_buf").attach(&ring)?;
    let mut empty = link.open()?;
    assert_eq!(read_all(&mut empty, 8), [0]);
    ring.register(&[BufSpec::new(1); 5])?;
    for _ in 0..3 {
        assert!(read_all(&mut empty, 4096).is_empty());
    }
    assert_eq!(
        read_all(&mut link.open()?, 4096).len(),
        6,
        "a new one begins"
    );
    done()
}
