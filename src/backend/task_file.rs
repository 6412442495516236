//! The TaskFile backend: BPF programs on iterators of stock kernels.

mod find;
mod walk;

pub(crate) use find::Finder;
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
    use crate::backend::program::COMPAT;
    use crate::backend::select::NotOpened;
    use crate::iter::Address;
    use crate::record::wire::Mode;
    use crate::record::{EpollItem, RegisteredBuf};

    fn opened<T>(result: Result<T, NotOpened>) -> T {
        match result {
            Ok(opened) => opened,
            Err(NotOpened::Refused(reason)) => panic!("needs root and BPF: {reason}"),
            Err(NotOpened::Failed(error)) => panic!("{error}"),
        }
    }

    /// What both forms of the programs see of one ring.
    fn look(address: &Address) -> (Vec<RegisteredBuf>, Vec<String>) {
        let mut walker = opened(Walker::<RegisteredBuf>::open(address.clone()));
        let nr = walker.walk(Mode::Verified, 0).unwrap().unwrap();
        let records = walker.records(nr).unwrap().to_vec();
        let (sightings, _) = opened(Finder::open())
            .sightings(Some(std::process::id()))
            .unwrap();
        let mut seen: Vec<String> = sightings
            .iter()
            .filter(|sighting| sighting.key.1 == address.inode)
            .map(|sighting| format!("{sighting:?}"))
            .collect();
        seen.sort();
        seen.dedup();
        (records, seen)
    }

    /// What the programs see of an epoll set.
    fn items(address: &Address) -> Vec<EpollItem> {
        let mut walker = opened(Walker::open(address.clone()));
        let nr = walker.walk(Mode::Verified, 0).unwrap().unwrap();
        walker.records(nr).unwrap().to_vec()
    }

    /// The form for kernels before 6.9 runs on newer ones too, so it is tested
    /// on every machine.
    #[test]
    fn both_forms_of_the_programs_see_the_same() {
        let mut ring = RingBuilder::new(8).build().unwrap();
        ring.register_sparse(100).unwrap();
        let bufs = [Some(BufSpec::new(5000).at(77).tagged(9)), None];
        ring.update(40, &bufs).unwrap();
        let address = Address::of_fd(ring.as_fd()).unwrap();
        let mut set = EpollSet::new().unwrap();
        for data in 0..100 {
            let (read, _write) = rustix::pipe::pipe().unwrap();
            set.keep(read, 1, data).unwrap();
        }
        let set = Address::of_epoll_fd(set.as_fd()).unwrap();

        let direct = (look(&address), items(&set));
        let fell_back = COMPAT.load(Ordering::Relaxed);
        assert_eq!(fell_back, !crate::kernel::at_least(6, 9));
        COMPAT.store(true, Ordering::Relaxed);
        let compat = (look(&address), items(&set));
        COMPAT.store(false, Ordering::Relaxed);

        assert_eq!(direct, compat);
        let ((bufs, sightings), items) = direct;
        assert_eq!((bufs.len(), items.len()), (100, 100));
        assert_eq!(bufs[40].tag(), Some(9));
        // A descriptor, and a mapping that speaks for both of its areas.
        assert_eq!(sightings.len(), 2, "{sightings:#?}");
    }
}
