//! Finds rings, each once, with all its holders.

mod merge;
mod sets;

use std::collections::HashSet;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use crate::backend::{self, bpf, select, Search};
use crate::choice::{Backend, Selection};
use crate::error::{Error, Result};
use crate::kernel;
use crate::locator::RING;
use crate::ring::{Holder, Ring, Seen, Survey, Via};
use crate::tasks::{process_of, with_descriptor, Tasks};
use merge::{Gathered, Way};

pub use sets::EpollFinder;

/// The number of looks at what was busy, the pause before each, and the time after
/// which no other look begins: one look at a large machine takes long by itself.
const LOOKS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(2);
const ENOUGH: Duration = Duration::from_millis(200);

/// At most so many processes are looked at one by one, more with all others.
const FEW: usize = 16;

/// Finds the io_uring instances of the machine, or of one process.
///
/// With the TaskFile backend it sees every ring that a task holds by an open
/// descriptor, by a registered descriptor or by a mapping, and that is in the
/// caller's pid namespace or in one below it. It cannot see:
///
/// - rings of tasks outside the caller's pid namespace: the kernel's task
///   iterators do not show them;
/// - a ring whose last descriptor is closed while a request of *another* ring
///   on it (a poll, a message) is in flight, and one that is being torn down:
///   no task holds it, though its memory stays pinned until that is done;
/// - buffers that were unregistered while requests used them (6.13 on): they
///   stay pinned until these end, and are in no table;
/// - a mapping that changes while the search passes it (6.7 on) and a ring whose
///   only descriptor moves to a lower number meanwhile (dup2(2)) may be missed; a
///   descriptor that does not change is never missed. Before 6.9 the search waits
///   for the `mmap_lock` of each process.
///
/// With the fdinfo backend it sees the descriptors and mappings of processes
/// that the caller may inspect, but no registered descriptors. It does not know the
/// setup flags, and waits for the `mmap_lock` of each process.
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
    search: Box<dyn Search>,
    selection: Selection,
    mappings: bool,
}

impl RingFinder {
    /// A finder with the best backend that works here.
    ///
    /// # Errors
    ///
    /// As [`RingFinder::with_backend`].
    pub fn new() -> Result<Self> {
        Self::with_backend(None)
    }

    /// A finder with this backend, or with the best that works here for `None`.
    ///
    /// # Errors
    ///
    /// [`Error::NoBackend`] if it cannot serve: [`Backend::Native`] never can.
    pub fn with_backend(backend: impl Into<Option<Backend>>) -> Result<Self> {
        let (search, selection) = select::select(backend.into(), backend::search)?;
        Ok(Self {
            search,
            selection,
            mappings: true,
        })
    }

    /// Sets whether the mappings of processes are searched. They are by default, and
    /// that is most of the work, too much perhaps for a search every second. Without
    /// them the finder sees rings that are held by a descriptor or by a registered
    /// descriptor. A ring that is only mapped is not found, and a task that only maps a
    /// ring, as a forked child may, is not among its holders.
    #[must_use]
    pub fn mappings(self, look: bool) -> Self {
        Self {
            mappings: look,
            ..self
        }
    }

    /// The backend in use, and why the preferred ones are not.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Finds the rings of all processes.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if the kernel refuses a call.
    pub fn find_all(&mut self) -> Result<Survey> {
        self.find(Tasks::All)
    }

    /// Finds the rings that process `pid` (in the caller's pid namespace) holds, with
    /// all other holders of these rings.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchProcess`] and [`Error::IsAThread`] (ESRCH), and with the fdinfo
    /// backend [`Error::NotPermitted`] (EACCES).
    pub fn find_in(&mut self, pid: u32) -> Result<Survey> {
        crate::pidfd::open_process(pid)?;
        let own = self.find(Tasks::Process(pid))?;
        if own.rings.is_empty() && sees_all_of_one_process() {
            return Ok(own);
        }
        let mut all = self.find(Tasks::All)?;
        all.rings.retain(|ring| ring.holder(pid, None).is_some());
        all.unseen = own.unseen;
        Ok(all)
    }

    /// Finds the rings that thread `tid` (in the caller's pid namespace) holds, with all
    /// other holders of these rings: by the table of descriptors that it uses, which it
    /// may share with others, or by its registered descriptors. A ring that its process
    /// has mapped is among them if no other thread of the process holds it so. The first
    /// holders are the thread's own ways to hold the ring, also of descriptors that it
    /// shares with its process, which are then there for both.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchProcess`] (ESRCH), and with the fdinfo backend
    /// [`Error::NotPermitted`] (EACCES).
    pub fn find_thread(&mut self, tid: u32) -> Result<Survey> {
        let pid = process_of(tid)?;
        let own = self.find(Tasks::Thread(tid))?;
        if own.rings.is_empty() {
            return Ok(own);
        }
        let is_mapped = |holder: &Holder| holder.via == Via::Mapping;
        let mut all = self.find(Tasks::All)?;
        let mut found = Survey {
            rings: Vec::new(),
            unseen: own.unseen,
        };
        for mut ring in own.rings {
            let at = all.rings.iter().position(|other| other.inode == ring.inode);
            // One that others no longer hold by now was held by the thread all the same.
            if let Some(other) = at.map(|at| all.rings.swap_remove(at)) {
                let only_mapped = ring.holders().iter().all(is_mapped);
                if only_mapped && !other.holder(pid, None).is_none_or(is_mapped) {
                    continue;
                }
                let others = other.holders.iter().filter(|one| one.tid != tid).cloned();
                let holders = ring.holders.iter().cloned().chain(others).collect();
                ring = other.held_by(holders);
            }
            found.rings.push(ring);
        }
        Ok(found)
    }

    /// The ring that is descriptor `fd` of process `pid`.
    ///
    /// # Errors
    ///
    /// As [`RingFinder::find_in`]; [`Error::NoSuchDescriptor`] (EBADF) and
    /// [`Error::NotARing`] (EOPNOTSUPP); [`Error::SeveralRings`] if threads of the
    /// process that do not share their descriptors have different rings there:
    /// [`RingFinder::find_in`] finds all of these.
    pub fn find_fd(&mut self, pid: u32, fd: RawFd) -> Result<Ring> {
        let mut rings = self.find_in(pid)?.rings;
        rings.retain(|ring| ring.holder(pid, Some(fd)).is_some());
        match rings.len() {
            0 => Err(match with_descriptor(pid, fd, RING)?.1.what {
                what if what == RING => Error::malformed(
                    "the search for rings",
                    format!("it did not see descriptor {fd} of process {pid}, which is one"),
                ),
                what => Error::NotARing { pid, fd, what },
            }),
            1 => Ok(rings.remove(0)),
            _ => {
                let of_thread = |ring: &Ring| {
                    let holder = ring.holder(pid, Some(fd));
                    (holder.map_or(pid, |holder| holder.tid), ring.inode)
                };
                let rings = rings.iter().map(of_thread).collect();
                Err(Error::SeveralRings { pid, fd, rings })
            }
        }
    }

    /// Looks again, a few times, at what was too busy for a sum or could not be
    /// searched.
    fn find(&mut self, tasks: Tasks) -> Result<Survey> {
        let start = Instant::now();
        let mut seen = Gathered::default();
        seen.add(self.look(tasks)?);
        for _ in 1..LOOKS {
            let busy = seen.busy();
            if busy.is_empty() || start.elapsed() > ENOUGH || !self.search.gains_by_another_look() {
                break;
            }
            std::thread::sleep(PAUSE);
            let known: Vec<Way> = seen.ways(&busy).collect();
            // 0 is a task that is about to end.
            let mut all = busy.len() > FEW
                || busy.contains(&0)
                || matches!(tasks, Tasks::Thread(_))
                || !sees_all_of_one_process();
            if !all {
                seen.forget(|pid| busy.contains(&pid));
                for &one in &busy {
                    seen.add(self.look(Tasks::Process(one))?);
                }
                // A process that let go of a ring may have handed it on; and a look at
                // one process ends with a thread that ends while it is looked at.
                let left: HashSet<Way> = seen.ways(&busy).collect();
                all = known.iter().any(|way| !left.contains(way));
            }
            if all {
                seen.forget(|_| true);
                seen.add(self.look(tasks)?);
            }
        }
        Ok(seen.survey())
    }

    /// Without our own observers, which do not count as holders: they have our memory.
    fn look(&mut self, tasks: Tasks) -> Result<Seen> {
        // Before and after: one may come or go meanwhile.
        let mut ours = bpf::observers();
        let mut seen = self.search.look(tasks, self.mappings)?;
        ours.extend(bpf::observers());
        seen.sightings.retain(|one| !ours.contains(&one.holder.pid));
        seen.unseen.retain(|one| !ours.contains(&one.pid));
        Ok(seen)
    }
}

impl std::fmt::Debug for RingFinder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RingFinder")
            .field("backend", &self.selection.backend)
            .finish_non_exhaustive()
    }
}

/// The walk of one process alone passes over threads with their own descriptor table on
/// 6.1, and no longer on 6.12 (task_seq_get_next(), kernel/bpf/task_iter.c).
fn sees_all_of_one_process() -> bool {
    kernel::at_least(6, 12)
}
