//! Finds rings, each once, with all who hold it.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::time::Duration;

use crate::backend::select::{self, NotOpened};
use crate::backend::{fdinfo, Backend, Selection};
use crate::error::{Error, Result};
use crate::ring::{Charged, Holder, Pinned, Queue, Ring, SetupFlags, SqPoll, Survey, Unseen};

#[cfg(feature = "bpf")]
use crate::backend::task_file;

/// How often to look again for what was busy, and the pause before it.
const LOOKS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(2);

/// One way in which a task holds a ring, as a backend saw it.
#[derive(Debug, Clone)]
pub(crate) struct Sighting {
    /// Equal for equal rings.
    pub(crate) key: u64,
    pub(crate) inode: u64,
    pub(crate) holder: Holder,
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

impl Sighting {
    /// A sighting of a ring of which no more is known.
    pub(crate) fn new(key: u64, inode: u64, holder: Holder) -> Self {
        Self {
            key,
            inode,
            holder,
            creator_uid: None,
            flags: None,
            sq: None,
            cq: None,
            sqpoll: None,
            nr_bufs: None,
            nr_files: None,
            pinned: None,
            charged: None,
        }
    }
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
/// - a mapping that changes while the search passes it (6.7 on) may be missed;
///   a descriptor never is.
///
/// With the fdinfo backend it sees the descriptors and mappings of processes
/// that the caller may look at, and not the registered descriptors. Threads
/// that have unshared their descriptors are missed, and the setup flags are
/// not known.
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
            Backend::Fdinfo => Ok(Engine::Fdinfo),
            Backend::Native | Backend::Auto => Err(NotOpened::Refused(select::refuse_native())),
        })?;
        Ok(Self { engine, selection })
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
        let exists = i32::try_from(pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .is_some_and(|pid| {
                // EPERM says that it is there.
                rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
            });
        if !exists {
            return Err(Error::NoSuchProcess { pid });
        }
        let own = self.find(Some(pid))?;
        let mut all = match own.rings.is_empty() {
            true => return Ok(own),
            false => self.find(None)?,
        };
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

    /// Looks again, a few times, while some ring was too busy for a sum or
    /// some process could not be looked at.
    fn find(&mut self, pid: Option<u32>) -> Result<Survey> {
        let mut sums = HashMap::new();
        let mut looks = 0;
        loop {
            looks += 1;
            let (sightings, unseen) = self.look(pid)?;
            for sighting in &sightings {
                if let Some(pinned) = sighting.pinned {
                    sums.insert(sighting.key, pinned);
                }
            }
            let settled = sightings.iter().all(|s| sums.contains_key(&s.key));
            let give_up = looks == LOOKS || matches!(self.engine, Engine::Fdinfo);
            if give_up || (settled && unseen.is_empty()) {
                return Ok(survey(sightings, unseen, &sums));
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn look(&mut self, pid: Option<u32>) -> Result<(Vec<Sighting>, Vec<Unseen>)> {
        match &mut self.engine {
            #[cfg(feature = "bpf")]
            Engine::TaskFile(finder) => finder.sightings(pid),
            Engine::Fdinfo => fdinfo::find(pid),
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

/// Puts the sightings of one ring together.
fn survey(sightings: Vec<Sighting>, unseen: Vec<Unseen>, sums: &HashMap<u64, Pinned>) -> Survey {
    let mut at = HashMap::new();
    let mut rings: Vec<Ring> = Vec::new();
    for sighting in sightings {
        let slot = *at.entry(sighting.key).or_insert(rings.len());
        if slot == rings.len() {
            rings.push(Ring {
                inode: sighting.inode,
                holders: Vec::new(),
                creator_uid: sighting.creator_uid,
                flags: sighting.flags,
                sq: sighting.sq,
                cq: sighting.cq,
                sqpoll: sighting.sqpoll,
                nr_bufs: sighting.nr_bufs,
                nr_files: sighting.nr_files,
                pinned: sums.get(&sighting.key).copied(),
                charged: sighting.charged,
            });
        }
        rings[slot].holders.push(sighting.holder);
    }
    for ring in &mut rings {
        order(&mut ring.holders);
    }
    rings.sort_by_key(|ring| {
        let first = ring.owner();
        (first.pid, first.via, ring.inode)
    });
    let mut survey = Survey { rings, unseen };
    survey.unseen.sort_by_key(|unseen| unseen.pid);
    survey.unseen.dedup();
    survey
}

/// Descriptors first. What a process holds in other ways says nothing more
/// when it has a descriptor.
fn order(holders: &mut Vec<Holder>) {
    let with_fd: Vec<u32> = holders
        .iter()
        .filter(|holder| holder.fd().is_some())
        .map(|holder| holder.pid)
        .collect();
    holders.retain(|holder| holder.fd().is_some() || !with_fd.contains(&holder.pid));
    holders.sort_by_key(|holder| (holder.fd().is_none(), holder.pid, holder.via, holder.tid));
    holders.dedup_by_key(|holder| (holder.pid, holder.via, holder.tid));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Via;

    fn holder(pid: u32, via: Via) -> Holder {
        Holder {
            pid,
            tid: pid,
            via,
            uid: 0,
            name: String::new(),
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
        .map(|(key, holder)| Sighting::new(key, key + 100, holder));
        let found = survey(sightings.into(), Vec::new(), &HashMap::new());
        assert_eq!(found.rings.len(), 2);
        assert_eq!(found.rings[0].inode, 108);
        let vias: Vec<_> = found.rings[1]
            .holders
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
}
