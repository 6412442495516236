//! What a stress counts, under the names that its summary gives them.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that any thread may count up.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What came of it so far.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) rings: Count,
    pub(crate) sets: Count,
    pub(crate) links: Count,
    pub(crate) sessions: Count,
    pub(crate) reads: Count,
    pub(crate) records: Count,
    /// Sessions that were read to the end.
    pub(crate) whole: Count,
    pub(crate) busy: Count,
    pub(crate) gone: Count,
    pub(crate) memory: Count,
    pub(crate) faults: Count,
    /// Every other errno: each ends the run.
    pub(crate) other: Count,
    pub(crate) snapshots: Count,
    pub(crate) snapshots_gone: Count,
}

impl Counts {
    pub(crate) fn named(&self) -> [(&'static str, u64); 14] {
        [
            ("rings made and closed", &self.rings),
            ("epoll sets made and closed", &self.sets),
            ("links", &self.links),
            ("iterators", &self.sessions),
            ("reads", &self.reads),
            ("records", &self.records),
            ("iterators read to the end", &self.whole),
            ("EDEADLK", &self.busy),
            ("ENXIO", &self.gone),
            ("ENOMEM", &self.memory),
            ("faults injected", &self.faults),
            ("other errnos", &self.other),
            ("snapshots by the library", &self.snapshots),
            ("of rings that had gone", &self.snapshots_gone),
        ]
        .map(|(name, count)| (name, count.get()))
    }

    /// Without one of each, a run has shown nothing.
    pub(crate) fn untried(&self) -> Vec<&'static str> {
        let wanted = [
            ("rings", &self.rings),
            ("iterators read to the end", &self.whole),
            ("ENXIO", &self.gone),
            ("snapshots", &self.snapshots),
        ];
        let none = wanted.into_iter().filter(|(_, count)| count.get() == 0);
        none.map(|(name, _)| name).collect()
    }
}

/// All in one line.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.named().map(|(name, count)| format!("{count} {name}"));
        f.write_str(&named.join(", "))
    }
}
