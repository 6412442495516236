//! Finds rings, each once, with all who hold it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use crate::backend::fdinfo;
use crate::backend::select::{self, NotOpened};
use crate::choice::{Backend, Reason, Selection};
use crate::error::{Error, Result};
use crate::kernel;
use crate::ring::{Charged, Holder, Pinned, Queue, Ring, SetupFlags, SqPoll, Survey, Unseen, Via};

#[cfg(feature = "bpf")]
use crate::backend::task_file;

/// How often to look again for what was busy, the pause before it, and when to
/// let it be: a look at a large machine takes long by itself.
const LOOKS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(2);
const ENOUGH: Duration = Duration::from_millis(200);

/// At most so many processes are looked at one by one, more with all others.
const FEW: usize = 16;

/// Equal for equal rings. The address of a ring may be that of another one by
/// the next look, so the inode belongs to it.
pub(crate) type Key = (u64, u64);

/// One way in which a task holds a ring, as a backend saw it.
#[derive(Debug, Clone)]
pub(crate) struct Sighting {
    /// The ring, opaque, and its inode.
    pub(crate) key: Key,
    pub(crate) holder: Holder,
    /// Equal for threads that share their descriptors, opaque.
    pub(crate) files: u64,
    /// What the ring is; with one sighting of a ring at least.
    pub(crate) details: Option<Details>,
}

/// What a ring is, as far as it is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Details {
    pub(crate) creator_uid: Option<u32>,
    pub(crate) flags: Option<SetupFlags>,
    pub(crate) sq: Option<Queue>,
    pub(crate) cq: Option<Queue>,
    pub(crate) sqpoll: Option<SqPoll>,
    pub(crate) nr_bufs: Option<u32>,
    pub(crate) nr_files: Option<u32>,
    pub(crate) pinned: Option<Pinned>,
    pub(crate) charged: Option<Charged>,
}

enum Engine {
    #[cfg(feature = "bpf")]
    TaskFile(Box<task_file::Finder>),
    Fdinfo,
}

/// Finds the io_uring instances of the machine, or of one process.
///
/// With the TaskFile backend it sees every ring that a task holds by an open
/// descriptor, by a registered descriptor or by a mapping, and that is in the
/// caller's pid namespace or in one below it. What it cannot see:
///
/// - rings of tasks outside the caller's pid namespace: the kernel's task
///   iterators do not show them;
/// - a ring whose last descriptor is closed while a request of *another* ring
///   on it (a poll, a message) is in flight, and one that is being torn down:
///   no task holds it, though its memory stays pinned until that is done;
/// - buffers that were unregistered while requests used them (6.13 on): they
///   stay pinned until these end, and are in no table;
/// - a mapping that changes while the search passes it (6.7 on) may be missed, and
///   a ring whose only descriptor goes to a lower number meanwhile (dup2(2)); a
///   descriptor that stays what it is never is. Before 6.9 the search waits for the
///   `mmap_lock` of each process.
///
/// With the fdinfo backend it sees the descriptors and mappings of processes
/// that the caller may look at, and not the registered descriptors. Threads
/// that have unshared their descriptors, or outlived the leader of their
/// process, are missed, the setup flags are not known, and it waits for the
/// `mmap_lock` of each process.
///
/// ```no_run
/// # fn main() -> uring_bpf_iter::Result<()> {
/// let mut finder = uring_bpf_iter::RingFinder::new()?;
/// for ring in finder.find_all()?.rings {
///     let owner = ring.owner();
///     println!("ring {} of {} ({})", ring.inode, owner.name, owner.pid);
/// }
/// # Ok(())
/// # }
/// ```
pub struct RingFinder {
    engine: Engine,
    selection: Selection,
    mappings: bool,
}

impl RingFinder {
    /// A finder with the best backend there is.
    ///
    /// # Errors
    ///
    /// As [`RingFinder::with_backend`].
    pub fn new() -> Result<Self> {
        Self::with_backend(Backend::Auto)
    }

    /// A finder with this backend.
    ///
    /// # Errors
    ///
    /// [`Error::NoBackend`] if it cannot serve.
    pub fn with_backend(backend: Backend) -> Result<Self> {
        let (engine, selection) = select::select(backend, |backend| match backend {
            #[cfg(feature = "bpf")]
            Backend::TaskFile => {
                task_file::Finder::open().map(|finder| Engine::TaskFile(Box::new(finder)))
            }
            #[cfg(not(feature = "bpf"))]
            Backend::TaskFile => Err(NotOpened::Refused(select::refuse_bpf())),
            Backend::Fdinfo => match select::check_proc() {
                Ok(()) => Ok(Engine::Fdinfo),
                Err(reason) => Err(NotOpened::Refused(reason)),
            },
            Backend::Native | Backend::Auto => Err(NotOpened::Refused(Reason::NotBuilt(
                "a native iterator shows one ring, it finds none",
            ))),
        })?;
        Ok(Self {
            engine,
            selection,
            mappings: true,
        })
    }

    /// Whether to look at the mappings of processes, which it does unless told
    /// otherwise, and which is most of the work: for a look every second it may be too
    /// much. Without them it finds what is held by a descriptor or by a registered one.
    /// A ring that is only mapped any more is not found, and who only maps a ring, as a
    /// forked child may, is not among its holders.
    #[must_use]
    pub fn mappings(self, look: bool) -> Self {
        Self {
            mappings: look,
            ..self
        }
    }

    /// Which backend serves, and why better ones do not.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Finds the rings of all processes.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if the kernel refuses a call.
    pub fn find_all(&mut self) -> Result<Survey> {
        self.find(None)
    }

    /// Finds the rings that process `pid` holds, a number of the caller's pid
    /// namespace, with all other holders of these rings.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchProcess`] (ESRCH), and with the fdinfo backend
    /// [`Error::NotPermitted`] (EACCES).
    pub fn find_in(&mut self, pid: u32) -> Result<Survey> {
        crate::pidfd::open(pid)?;
        let own = self.find(Some(pid))?;
        if own.rings.is_empty() && sees_all_of_one_process() {
            return Ok(own);
        }
        let mut all = self.find(None)?;
        all.rings.retain(|ring| ring.holder(pid, None).is_some());
        all.unseen = own.unseen;
        Ok(all)
    }

    /// The ring that is descriptor `fd` of process `pid`.
    ///
    /// # Errors
    ///
    /// As [`RingFinder::find_in`]; [`Error::NoSuchDescriptor`] (EBADF) and
    /// [`Error::NotARing`] (EOPNOTSUPP).
    pub fn find_fd(&mut self, pid: u32, fd: RawFd) -> Result<Ring> {
        let rings = self.find_in(pid)?.rings;
        if let Some(ring) = rings
            .into_iter()
            .find(|ring| ring.holder(pid, Some(fd)).is_some())
        {
            return Ok(ring);
        }
        let path = format!("/proc/{pid}/fd/{fd}");
        match std::fs::read_link(&path) {
            Ok(what) if what.as_os_str() == "anon_inode:[io_uring]" => Err(Error::malformed(
                "the search for rings",
                format!("it did not see descriptor {fd} of process {pid}, which is one"),
            )),
            Ok(what) => Err(Error::NotARing {
                pid,
                fd,
                what: what.display().to_string(),
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::NoSuchDescriptor { pid, fd })
            }
            Err(e) => Err(Error::os(format!("readlink {path}"), e)),
        }
    }

    /// Looks again, a few times, at what was too busy for a sum or could not be
    /// looked at.
    fn find(&mut self, pid: Option<u32>) -> Result<Survey> {
        let start = Instant::now();
        let mut seen = Seen::default();
        seen.add(self.look(pid)?);
        for _ in 1..LOOKS {
            let busy = seen.busy();
            if busy.is_empty() || start.elapsed() > ENOUGH || matches!(self.engine, Engine::Fdinfo)
            {
                break;
            }
            std::thread::sleep(PAUSE);
            let known: Vec<Way> = seen.ways(&busy).collect();
            // 0 is a task that is just going.
            let mut all = busy.len() > FEW || busy.contains(&0) || !sees_all_of_one_process();
            if !all {
                seen.forget(|pid| busy.contains(&pid));
                for &one in &busy {
                    seen.add(self.look(Some(one))?);
                }
                // Who let go of a ring may have handed it on; and a look at one process
                // ends with a thread that ends while it is looked at.
                let left: HashSet<Way> = seen.ways(&busy).collect();
                all = known.iter().any(|way| !left.contains(way));
            }
            if all {
                seen.forget(|_| true);
                seen.add(self.look(pid)?);
            }
        }
        Ok(survey(seen))
    }

    fn look(&mut self, pid: Option<u32>) -> Result<(Vec<Sighting>, Vec<Unseen>)> {
        match &mut self.engine {
            #[cfg(feature = "bpf")]
            Engine::TaskFile(finder) => finder.sightings(pid, self.mappings),
            Engine::Fdinfo => fdinfo::find(pid, self.mappings),
        }
    }
}

impl std::fmt::Debug for RingFinder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RingFinder")
            .field("backend", &self.selection.backend)
            .finish_non_exhaustive()
    }
}

/// The walk of one process alone passes over threads with descriptors of their own on
/// 6.1, and no longer on 6.12 (task_seq_get_next(), kernel/bpf/task_iter.c).
fn sees_all_of_one_process() -> bool {
    kernel::at_least(6, 12)
}

/// A ring, and how which thread holds it.
type Way = (Key, u32, u32, Via);

/// What the looks of one search have seen.
#[derive(Default)]
struct Seen {
    sightings: Vec<Sighting>,
    details: HashMap<Key, Details>,
    /// By ring and size of its table.
    sums: HashMap<(Key, Option<u32>), Pinned>,
    unseen: Vec<Unseen>,
}

impl Seen {
    /// Takes in what a look has seen. A sum that it could not make is that of an earlier
    /// one, for a table of the same size.
    fn add(&mut self, (sightings, unseen): (Vec<Sighting>, Vec<Unseen>)) {
        self.unseen.extend(unseen);
        self.sightings.reserve(sightings.len());
        self.details.reserve(sightings.len());
        self.sums.reserve(sightings.len());
        for mut sighting in sightings {
            if let Some(mut now) = sighting.details.take() {
                let table = (sighting.key, now.nr_bufs);
                match now.pinned {
                    Some(pinned) => drop(self.sums.insert(table, pinned)),
                    None => now.pinned = self.sums.get(&table).copied(),
                }
                self.details.insert(sighting.key, now);
            }
            self.sightings.push(sighting);
        }
    }

    /// Forgets who holds what in these processes.
    fn forget(&mut self, of: impl Fn(u32) -> bool) {
        self.sightings.retain(|sighting| !of(sighting.holder.pid));
        self.unseen.retain(|unseen| !of(unseen.pid));
    }

    /// How these processes hold rings.
    fn ways<'a>(&'a self, of: &'a BTreeSet<u32>) -> impl Iterator<Item = Way> + 'a {
        let theirs = |sighting: &&Sighting| of.contains(&sighting.holder.pid);
        let way =
            |Sighting { key, holder, .. }: &Sighting| (*key, holder.pid, holder.tid, holder.via);
        self.sightings.iter().filter(theirs).map(way)
    }

    /// The processes that could not be looked at, and one for each ring without a sum.
    fn busy(&self) -> BTreeSet<u32> {
        let mut rings = HashSet::new();
        let has_sum = |key| {
            let details = self.details.get(key);
            details.is_some_and(|details| details.pinned.is_some())
        };
        let unsettled = self.sightings.iter().filter(|sighting| {
            // Each ring once.
            !has_sum(&sighting.key) && rings.insert(sighting.key)
        });
        let of_rings: BTreeSet<u32> = unsettled.map(|sighting| sighting.holder.pid).collect();
        let unseen = self.unseen.iter().map(|unseen| unseen.pid);
        unseen.chain(of_rings).collect()
    }
}

/// A ring whose sightings are being put together.
#[derive(Default)]
struct Found {
    inode: u64,
    details: Details,
    holders: Vec<(Holder, u64)>,
}

/// Puts the sightings of one ring together.
fn survey(mut seen: Seen) -> Survey {
    let mut at: HashMap<Key, usize> = HashMap::with_capacity(seen.details.len());
    let mut found: Vec<Found> = Vec::with_capacity(seen.details.len());
    for sighting in seen.sightings {
        let slot = *at.entry(sighting.key).or_insert(found.len());
        if slot == found.len() {
            found.push(Found {
                inode: sighting.key.1,
                details: seen.details.remove(&sighting.key).unwrap_or_default(),
                ..Found::default()
            });
        }
        found[slot].holders.push((sighting.holder, sighting.files));
    }
    let mut rings: Vec<Ring> = found
        .into_iter()
        .map(|ring| Ring::new(ring.inode, ring.details, order(ring.holders)))
        .collect();
    rings.sort_by_key(|ring| {
        let first = ring.owner();
        (first.pid, first.via, ring.inode)
    });
    let mut survey = Survey {
        rings,
        unseen: seen.unseen,
    };
    survey.unseen.sort_by_key(|unseen| unseen.pid);
    survey.unseen.dedup();
    survey
}

/// Descriptors first. What a process holds in other ways says nothing more
/// when it has a descriptor.
fn order(mut holders: Vec<(Holder, u64)>) -> Vec<Holder> {
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

    fn holder(pid: u32, via: Via) -> Holder {
        Holder {
            pid,
            tid: pid,
            via,
            uid: 0,
            name: String::new(),
        }
    }

    fn sighting(ring: u64, holder: Holder, files: u64) -> Sighting {
        Sighting {
            key: (ring, ring + 100),
            holder,
            files,
            details: None,
        }
    }

    fn seen<const N: usize>(sightings: [Sighting; N]) -> Seen {
        let mut seen = Seen::default();
        seen.add((sightings.into(), Vec::new()));
        seen
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
        let found = survey(seen(sightings));
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
        let found = survey(seen([thread(23, 1), thread(22, 1), thread(24, 2)]));
        let tids: Vec<_> = found.rings[0].holders().iter().map(|h| h.tid).collect();
        assert_eq!(tids, [22, 24]);
        // Numbers begin anew: a thread may have a lower one than its leader.
        let found = survey(seen([thread(3, 1), thread(20, 1)]));
        assert_eq!(found.rings[0].owner().tid, 20);
    }

    #[test]
    fn a_thread_is_named_once() {
        let fd = holder(20, Via::Descriptor(4));
        let found = survey(seen([
            sighting(7, fd.clone(), 1),
            sighting(7, fd.clone(), 2),
        ]));
        assert_eq!(found.rings[0].holders(), [fd]);
    }

    /// An address that has gone to another ring brings no sum with it.
    #[test]
    fn sums_are_carried_for_the_same_table_only() {
        let with = |inode, nr_bufs, pinned| {
            let mut one = sighting(7, holder(20, Via::Descriptor(4)), 1);
            one.key.1 = inode;
            one.details = Some(Details {
                nr_bufs,
                pinned,
                ..Details::default()
            });
            one
        };
        let sum = Pinned::of(&[], crate::Consistency::Verified);
        let mut seen = seen([with(1, Some(3), Some(sum))]);
        assert!(seen.busy().is_empty());
        seen.forget(|_| true);
        seen.add((vec![with(1, Some(3), None)], Vec::new()));
        assert!(seen.busy().is_empty(), "that of before");
        for other in [with(1, None, None), with(2, Some(3), None)] {
            seen.forget(|_| true);
            seen.add((vec![other], Vec::new()));
            assert_eq!(seen.busy(), [20].into());
        }
        seen.forget(|_| true);
        seen.add((vec![with(1, Some(3), None)], Vec::new()));
        assert!(seen.busy().is_empty(), "that of before a change");
    }

    /// Who was looked at again may hold a ring no more that others do hold.
    #[test]
    fn a_ring_keeps_what_was_said_of_it() {
        let mut described = sighting(7, holder(20, Via::Descriptor(4)), 1);
        described.details = Some(Details {
            nr_bufs: Some(3),
            ..Details::default()
        });
        let mut seen = seen([described, sighting(7, holder(30, Via::Mapping), 2)]);
        seen.unseen.push(Unseen {
            pid: 40,
            why: String::new(),
        });
        assert_eq!(seen.busy(), [20, 40].into());
        for pid in seen.busy() {
            seen.forget(|one| one == pid);
        }
        let found = survey(seen);
        assert_eq!(found.unseen.len(), 0);
        let [ring] = &found.rings[..] else {
            panic!("one ring: {:?}", found.rings);
        };
        assert_eq!((ring.owner().pid, ring.nr_bufs), (30, Some(3)));
    }
}
