//! The TaskFile backend: BPF programs on iterators of stock kernels.

mod find;
mod frames;
mod walk;

pub(crate) use find::Finder;
pub(crate) use frames::page_base;
pub(crate) use walk::{no_room, outcome, owner, Walker};

pub(crate) fn page_shift() -> u8 {
    rustix::param::page_size().trailing_zeros() as u8
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::atomic::Ordering;

    use uring_testkit::{BufSpec, EpollSet, RingBuilder};

    use super::{Finder, Walker};
    use crate::backend::btf;
    use crate::backend::native::Native;
    use crate::backend::program::{COMPAT, FAST};
    use crate::backend::select::NotOpened;
    use crate::locator::Locator;
    use crate::record::wire::Mode;
    use crate::record::{Dumped, EpollItem, RegisteredBuf, RegisteredFile, Segment};

    fn opened<T>(result: Result<T, NotOpened>) -> T {
        match result {
            Ok(opened) => opened,
            Err(NotOpened::Refused(reason)) => panic!("needs root and BPF: {reason}"),
            Err(NotOpened::Failed(error)) => panic!("{error}"),
        }
    }

    /// A table, by a native iterator too where the kernel has one.
    fn table<R: Dumped + PartialEq>(address: &Locator, which: u64) -> Vec<R> {
        let mut walker = opened(Walker::<R>::open(address.clone()));
        let nr = walker.walk(Mode::Verified, which).unwrap().unwrap();
        let records = walker.records(nr).unwrap().to_vec();
        if btf::has_target(R::TARGET).unwrap() {
            let mut native = opened(Native::<R>::open(address.clone()));
            let nr = native.read(which).unwrap().unwrap();
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

    /// What one form of the programs sees of a ring.
    fn look(address: &Locator) -> Seen {
        let (sightings, _) = opened(Finder::open())
            .sightings(Some(std::process::id()), true)
            .unwrap();
        let mut seen: Vec<String> = sightings
            .iter()
            .filter(|sighting| sighting.key.1 == address.inode)
            .map(|sighting| format!("{sighting:?}"))
            .collect();
        seen.sort();
        seen.dedup();
        Seen {
            bufs: table(address, 0),
            files: table(address, 0),
            segments: table(address, 40),
            sightings: seen,
        }
    }

    /// What the programs see of an epoll set.
    fn items(address: &Locator) -> Vec<EpollItem> {
        let mut walker = opened(Walker::open(address.clone()));
        let nr = walker.walk(Mode::Verified, 0).unwrap().unwrap();
        walker.records(nr).unwrap().to_vec()
    }

    /// The form for kernels before 6.9 runs on newer ones too, so it is tested
    /// on every machine.
    #[test]
    fn both_forms_of_the_programs_see_the_same() {
        let mut ring = RingBuilder::new(8).build().unwrap();
        let (end, _other) = rustix::pipe::pipe().unwrap();
        ring.register_sparse(100).unwrap();
        let bufs = [Some(BufSpec::new(5000).at(77).tagged(9)), None];
        ring.update(40, &bufs).unwrap();
        ring.register_files(&[end.as_fd()]).unwrap();
        let address = Locator::of_fd(ring.as_fd()).unwrap();
        let mut set = EpollSet::new().unwrap();
        for data in 0..100 {
            let (read, _write) = rustix::pipe::pipe().unwrap();
            set.keep(read, 1, data).unwrap();
        }
        let set = Locator::of_epoll_fd(set.as_fd()).unwrap();

        let direct = (look(&address), items(&set));
        let fell_back = COMPAT.load(Ordering::Relaxed);
        assert_eq!(fell_back, !crate::kernel::at_least(6, 9));
        COMPAT.store(true, Ordering::Relaxed);
        let compat = (look(&address), items(&set));
        COMPAT.store(false, Ordering::Relaxed);
        assert_eq!(direct, compat);

        assert!(FAST.load(Ordering::Relaxed), "loaders should work here");
        FAST.store(false, Ordering::Relaxed);
        let by_libbpf = (look(&address), items(&set));
        FAST.store(true, Ordering::Relaxed);
        assert_eq!(direct, by_libbpf);

        let (direct, items) = direct;
        assert_eq!((direct.bufs.len(), direct.files.len()), (100, 1));
        assert_eq!(direct.bufs[40].tag(), Some(9));
        let lens: Vec<u32> = direct.segments.iter().map(Segment::len).collect();
        assert_eq!(lens, [4019, 981]);
        assert!(direct.segments[1].pfn().is_some());
        assert_eq!(items.len(), 100);
        // A descriptor, and a mapping that speaks for both of its areas.
        assert_eq!(direct.sightings.len(), 2, "{:#?}", direct.sightings);
    }
}
