//! Puts the sightings of one search together: each ring once, with all its holders.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::ring::{Holder, Key, Pinned, Ring, Seen, Sighting, Survey, Unseen, Via};

/// A ring, a process, a thread of it, and how that holds the ring.
pub(super) type Way = (Key, u32, u32, Via);

/// The sightings of one search, put together.
#[derive(Default)]
pub(super) struct Gathered {
    sightings: Vec<Sighting>,
    rings: HashMap<Key, Ring>,
    /// By ring and size of its table.
    sums: HashMap<(Key, Option<u32>), Pinned>,
    unseen: Vec<Unseen>,
}

impl Gathered {
    /// Takes in what a look has seen. A sum that it could not make is that of an earlier
    /// one, for a table of the same size.
    pub(super) fn add(&mut self, seen: Seen) {
        self.unseen.extend(seen.unseen);
        self.sightings.reserve(seen.sightings.len());
        self.rings.reserve(seen.sightings.len());
        self.sums.reserve(seen.sightings.len());
        for mut sighting in seen.sightings {
            if let Some(mut now) = sighting.ring.take() {
                let table = (sighting.key, now.nr_bufs);
                match now.pinned {
                    Some(pinned) => drop(self.sums.insert(table, pinned)),
                    None => now.pinned = self.sums.get(&table).copied(),
                }
                self.rings.insert(sighting.key, now);
            }
            self.sightings.push(sighting);
        }
    }

    /// Forgets what these processes hold.
    pub(super) fn forget(&mut self, of: impl Fn(u32) -> bool) {
        self.sightings.retain(|sighting| !of(sighting.holder.pid));
        self.unseen.retain(|unseen| !of(unseen.pid));
    }

    /// How these processes hold rings.
    pub(super) fn ways<'a>(&'a self, of: &'a BTreeSet<u32>) -> impl Iterator<Item = Way> + 'a {
        let theirs = |sighting: &&Sighting| of.contains(&sighting.holder.pid);
        let way =
            |Sighting { key, holder, .. }: &Sighting| (*key, holder.pid, holder.tid, holder.via);
        self.sightings.iter().filter(theirs).map(way)
    }

    /// The processes that could not be searched in full, and one for each ring without
    /// a sum.
    pub(super) fn busy(&self) -> BTreeSet<u32> {
        let mut rings = HashSet::new();
        let has_sum = |key| {
            let ring = self.rings.get(key);
            ring.is_some_and(|ring| ring.pinned.is_some())
        };
        let unsettled = self.sightings.iter().filter(|sighting| {
            // Each ring once.
            !has_sum(&sighting.key) && rings.insert(sighting.key)
        });
        let of_rings: BTreeSet<u32> = unsettled.map(|sighting| sighting.holder.pid).collect();
        let unseen = self.unseen.iter().map(|unseen| unseen.pid);
        unseen.chain(of_rings).collect()
    }

    /// The rings, each once with all its holders.
    pub(super) fn survey(mut self) -> Survey {
        let mut at: HashMap<Key, usize> = HashMap::with_capacity(self.rings.len());
        let mut found: Vec<(Ring, Vec<Held>)> = Vec::with_capacity(self.rings.len());
        for sighting in self.sightings {
            let key = sighting.key;
            let slot = *at.entry(key).or_insert(found.len());
            if slot == found.len() {
                let ring = self.rings.remove(&key);
                let ring = ring.unwrap_or_else(|| Ring::unknown(key.1));
                found.push((ring, Vec::new()));
            }
            found[slot].1.push((sighting.holder, sighting.files));
        }
        let mut rings: Vec<Ring> = found
            .into_iter()
            .map(|(ring, holders)| ring.held_by(order(holders)))
            .collect();
        rings.sort_by_key(|ring| {
            let first = ring.owner();
            (first.pid, first.via, ring.inode)
        });
        self.unseen.sort_by_key(|unseen| unseen.pid);
        self.unseen.dedup();
        Survey {
            rings,
            unseen: self.unseen,
        }
    }
}

/// A holder, and what is equal for threads that share their descriptors.
pub(super) type Held = (Holder, u64);

/// Descriptors first. Other ways in which a process holds the ring say nothing more
/// when it has a descriptor.
pub(super) fn order(mut holders: Vec<Held>) -> Vec<Holder> {
    // Of one there is nothing to put in order, and most rings have one.
    if holders.len() == 1 {
        return holders.into_iter().map(|(holder, _)| holder).collect();
    }
    let with_fd: HashSet<u32> = holders
        .iter()
        .filter(|(holder, _)| holder.fd().is_some())
        .map(|(holder, _)| holder.pid)
        .collect();
    holders.retain(|(holder, _)| holder.fd().is_some() || !with_fd.contains(&holder.pid));
    holders.sort_by_key(|(holder, files)| {
        let is_leader = holder.tid == holder.pid;
        let rest = (holder.pid, holder.via, *files, !is_leader, holder.tid);
        (holder.fd().is_none(), rest)
    });
    // A thread whose table was swapped meanwhile was looked at twice.
    let mut known = HashSet::new();
    holders.retain(|(holder, _)| known.insert((holder.pid, holder.tid, holder.via)));
    // A table of descriptors may be met through each of its threads.
    holders.dedup_by_key(|(holder, files)| match holder.via {
        Via::Registered(_) => (holder.pid, holder.via, holder.tid.into()),
        _ => (holder.pid, holder.via, *files),
    });
    holders.into_iter().map(|(holder, _)| holder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::UnseenReason;

    fn holder(pid: u32, via: Via) -> Holder {
        Holder {
            pid,
            tid: pid,
            via,
            uid: 0,
            name: String::new(),
            thread_name: None,
            name_bytes: None,
            thread_name_bytes: None,
        }
    }

    fn sighting(ring: u64, holder: Holder, files: u64) -> Sighting {
        Sighting {
            key: (ring, ring + 100),
            holder,
            files,
            ring: None,
        }
    }

    fn seen<const N: usize>(sightings: [Sighting; N]) -> Gathered {
        let mut seen = Gathered::default();
        seen.add(Seen {
            sightings: sightings.into(),
            ..Seen::default()
        });
        seen
    }

    fn look(one: Sighting) -> Seen {
        Seen {
            sightings: vec![one],
            ..Seen::default()
        }
    }

    #[test]
    fn a_ring_is_listed_once_with_all_its_holders() {
        let sightings = [
            (7, holder(30, Via::Mapping)),
            (7, holder(20, Via::Descriptor(4))),
            (8, holder(10, Via::Descriptor(3))),
            (7, holder(20, Via::Mapping)),
            (7, holder(20, Via::Descriptor(5))),
            (7, holder(20, Via::Descriptor(4))),
        ]
        .map(|(ring, holder)| sighting(ring, holder, 1));
        let found = seen(sightings).survey();
        assert_eq!(found.rings.len(), 2);
        assert_eq!(found.rings[0].inode, 108);
        let vias: Vec<_> = found.rings[1]
            .holders()
            .iter()
            .map(|h| (h.pid, h.via))
            .collect();
        assert_eq!(
            vias,
            [
                (20, Via::Descriptor(4)),
                (20, Via::Descriptor(5)),
                (30, Via::Mapping)
            ]
        );
    }

    #[test]
    fn threads_are_told_apart_by_their_tables_of_descriptors() {
        let thread = |tid, files| {
            let mut holder = holder(20, Via::Descriptor(4));
            holder.tid = tid;
            sighting(7, holder, files)
        };
        let found = seen([thread(23, 1), thread(22, 1), thread(24, 2)]).survey();
        let tids: Vec<_> = found.rings[0].holders().iter().map(|h| h.tid).collect();
        assert_eq!(tids, [22, 24]);
        // Numbers begin anew: a thread may have a lower one than its leader.
        let found = seen([thread(3, 1), thread(20, 1)]).survey();
        assert_eq!(found.rings[0].owner().tid, 20);
    }

    #[test]
    fn a_thread_is_named_once() {
        let fd = holder(20, Via::Descriptor(4));
        let found = seen([sighting(7, fd.clone(), 1), sighting(7, fd.clone(), 2)]).survey();
        assert_eq!(found.rings[0].holders(), [fd]);
    }

    /// An address that has gone to another ring brings no sum with it.
    #[test]
    fn sums_are_carried_for_the_same_table_only() {
        let with = |inode, nr_bufs, pinned| {
            let mut one = sighting(7, holder(20, Via::Descriptor(4)), 1);
            one.key.1 = inode;
            one.ring = Some(Ring {
                nr_bufs,
                pinned,
                ..Ring::unknown(inode)
            });
            one
        };
        let sum = Pinned::of(&[], crate::Consistency::Verified);
        let mut seen = seen([with(1, Some(3), Some(sum))]);
        assert!(seen.busy().is_empty());
        seen.forget(|_| true);
        seen.add(look(with(1, Some(3), None)));
        assert!(seen.busy().is_empty(), "that of before");
        for other in [with(1, None, None), with(2, Some(3), None)] {
            seen.forget(|_| true);
            seen.add(look(other));
            assert_eq!(seen.busy(), [20].into());
        }
        seen.forget(|_| true);
        seen.add(look(with(1, Some(3), None)));
        assert!(seen.busy().is_empty(), "that of before a change");
    }

    /// A process may have let go of a ring by the second look, while others hold it.
    #[test]
    fn a_ring_keeps_what_was_said_of_it() {
        let mut described = sighting(7, holder(20, Via::Descriptor(4)), 1);
        described.ring = Some(Ring {
            nr_bufs: Some(3),
            ..Ring::unknown(107)
        });
        let mut seen = seen([described, sighting(7, holder(30, Via::Mapping), 2)]);
        seen.unseen.push(Unseen {
            pid: 40,
            why: UnseenReason::MmapLocked,
        });
        assert_eq!(seen.busy(), [20, 40].into());
        for pid in seen.busy() {
            seen.forget(|one| one == pid);
        }
        let found = seen.survey();
        assert_eq!(found.unseen.len(), 0);
        let [ring] = &found.rings[..] else {
            panic!("one ring: {:?}", found.rings);
        };
        assert_eq!((ring.owner().pid, ring.nr_bufs), (30, Some(3)));
    }
}
