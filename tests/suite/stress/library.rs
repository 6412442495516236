//! The library among those who look.

use uring_bpf_iter::{Backend, Error, Retry, RingFinder, UringBufIter};
use uring_testkit::{EpollSet, TestRing};

use super::{Arena, Dice};
use crate::suite::native::SOON;
use crate::suite::oracle::{finder, Way};

/// Loaded once, which takes long, and attached to one ring after the other.
#[derive(Default)]
pub(super) struct Library(Option<(RingFinder, UringBufIter)>);

impl Library {
    fn attach(&mut self, ring: &TestRing) -> &mut UringBufIter {
        let (pid, fd) = (std::process::id(), ring.raw_fd());
        if let Some((finder, iter)) = &mut self.0 {
            let found = finder.find_fd(pid, fd).expect("find");
            iter.reattach(&found).expect("reattach");
        } else {
            let retry = Retry {
                attempts: u32::MAX,
                deadline: SOON,
                ..Retry::default()
            };
            let options = Way::Native.options().retry(retry);
            let iter = options.attach(ring).expect("attach");
            self.0 = Some((finder(Backend::TaskFile), iter));
        }
        &mut self.0.as_mut().expect("just made").1
    }

    /// While the ring is there, and just when it goes.
    pub(super) fn look(&mut self, arena: &Arena, dice: &mut Dice, ring: TestRing, set: EpollSet) {
        let iter = self.attach(&ring);
        for _ in 0..=dice.roll(20) {
            let bufs = iter.snapshot().expect("the ring is there");
            let seen = bufs.iter().map(|buf| (buf.addr(), buf.len()));
            let want = ring.expected().iter();
            let want = want.map(|buf| buf.map_or((0, 0), |b| (b.addr, b.len)));
            assert!(seen.eq(want), "{bufs:?}, registered: {:?}", ring.expected());
            arena.counts.snapshots.add(1);
        }
        drop((ring, set));
        match iter.snapshot() {
            Err(Error::RingGone { .. }) => arena.counts.snapshots_gone.add(1),
            other => panic!("the ring is closed: {other:?}"),
        }
    }
}
