//! Every form of the programs, and both ways to load them, see the same.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use uring_testkit::{BufSpec, EpollSet, RingBuilder};

use super::native::Native;
use super::program::{COMPAT, FAST, NO_CALL};
use super::task_file::{Finder, Walker, RINGS, SETS};
use super::wire::Mode;
use super::{btf, Table, BUFS, EPOLL, FILES, PAGES};
use crate::backend::reader::Search;
use crate::backend::select::NotOpened;
use crate::locator::Locator;
use crate::record::{EpollItem, Plain, RegisteredBuf, RegisteredFile, Segment};
use crate::ring::Sighting;
use crate::tasks::Tasks;

fn opened<T>(result: Result<T, NotOpened>) -> T {
    match result {
        Ok(opened) => opened,
        Err(NotOpened::Refused(reason)) => panic!("needs root and BPF: {reason}"),
        Err(NotOpened::Failed(error)) => panic!("{error}"),
    }
}

/// A table, by a native iterator too where the kernel has one.
fn read<R: Plain + PartialEq>(table: &'static Table<R>, locator: &Locator, slot: u64) -> Vec<R> {
    let mut walker = opened(Walker::open(table, locator.clone()));
    let nr = walker.walk(Mode::Verified, slot).unwrap();
    let records = walker.records(nr).unwrap().to_vec();
    if btf::has_target(table.target).unwrap() {
        let mut native = opened(Native::open(table, locator.clone()));
        let nr = native.walk(slot).unwrap();
        assert_eq!(native.records(nr).unwrap(), records);
    }
    records
}

#[derive(Debug, PartialEq)]
struct Seen {
    bufs: Vec<RegisteredBuf>,
    files: Vec<RegisteredFile>,
    segments: Vec<Segment>,
    sightings: Vec<String>,
}

/// One form of the programs looks at a ring.
fn look(locator: &Locator) -> Seen {
    let found = opened(Finder::open(&RINGS))
        .look(Tasks::Process(std::process::id()), true)
        .unwrap();
    let mut seen: Vec<String> = found
        .sightings
        .iter()
        .filter(|sighting| sighting.key.1 == locator.inode)
        .map(|sighting| format!("{sighting:?}"))
        .collect();
    seen.sort();
    seen.dedup();
    Seen {
        bufs: read(&BUFS, locator, 0),
        files: read(&FILES, locator, 0),
        segments: read(&PAGES, locator, 40),
        sightings: seen,
    }
}

/// The items of an epoll set, as the programs see them, and the ways in which we hold it.
fn items(locator: &Locator) -> (Vec<EpollItem>, Vec<String>) {
    let found = opened(Finder::open(&SETS))
        .look(Tasks::Process(std::process::id()), false)
        .unwrap();
    let held = |sighting: &&Sighting| sighting.holder.via == locator.places[0].via;
    let held: Vec<Sighting> = found.sightings.iter().filter(held).cloned().collect();
    // The very set, and no other under that number.
    let set = held.first().map_or(0, |sighting| sighting.key.0);
    let locator = Locator {
        set,
        ..locator.clone()
    };
    let mut walker = opened(Walker::open(&EPOLL, locator));
    let nr = walker.walk(Mode::Verified, 0).unwrap();
    let sightings = held.iter().map(|sighting| format!("{sighting:?}"));
    (walker.records(nr).unwrap().to_vec(), sightings.collect())
}

/// The forms for older kernels run on newer ones too, so they are tested
/// on every machine.
#[test]
fn all_forms_of_the_programs_see_the_same() {
    let mut ring = RingBuilder::new(8).build().unwrap();
    let (end, _other) = rustix::pipe::pipe().unwrap();
    ring.register_sparse(100).unwrap();
    let bufs = [Some(BufSpec::new(5000).at(77).tagged(9)), None];
    ring.update(40, &bufs).unwrap();
    ring.register_files(&[end.as_fd()]).unwrap();
    let locator = Locator::of_fd(ring.as_fd()).unwrap();
    let mut set = EpollSet::new().unwrap();
    for data in 0..100 {
        let (read, _write) = rustix::pipe::pipe().unwrap();
        set.keep(read, 1, data).unwrap();
    }
    let set = Locator::of_epoll_fd(set.as_fd()).unwrap();

    let direct = (look(&locator), items(&set));
    assert_eq!(
        NO_CALL.load(Ordering::Relaxed),
        !crate::kernel::at_least(6, 10)
    );
    NO_CALL.store(true, Ordering::Relaxed);
    let by_iterator = (look(&locator), items(&set));
    assert_eq!(direct, by_iterator);
    let fell_back = COMPAT.load(Ordering::Relaxed);
    assert_eq!(fell_back, !crate::kernel::at_least(6, 9));
    COMPAT.store(true, Ordering::Relaxed);
    let compat = (look(&locator), items(&set));
    COMPAT.store(false, Ordering::Relaxed);
    NO_CALL.store(false, Ordering::Relaxed);
    assert_eq!(direct, compat);

    assert!(FAST.load(Ordering::Relaxed), "loaders should work here");
    FAST.store(false, Ordering::Relaxed);
    let by_libbpf = (look(&locator), items(&set));
    FAST.store(true, Ordering::Relaxed);
    assert_eq!(direct, by_libbpf);

    let (direct, (items, held)) = direct;
    assert_eq!(held.len(), 1, "{held:#?}");
    assert_eq!((direct.bufs.len(), direct.files.len()), (100, 1));
    assert_eq!(direct.bufs[40].tag(), Some(9));
    let lens: Vec<u32> = direct.segments.iter().map(Segment::len).collect();
    assert_eq!(lens, [4019, 981]);
    assert!(direct.segments[1].pfn().is_some());
    assert_eq!(items.len(), 100);
    // A descriptor, and a mapping that speaks for both of its areas.
    assert_eq!(direct.sightings.len(), 2, "{:#?}", direct.sightings);
}
