//! Finds epoll sets, each once, with all its holders.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::time::Instant;

use super::merge::order;
use super::{sees_all_of_one_process, ENOUGH, LOOKS, PAUSE};
use crate::backend::{self, select, Search};
use crate::choice::{Backend, Selection};
use crate::epoll::{EpollSet, EpollSurvey};
use crate::error::{Error, Permission, Result};
use crate::locator::EPOLL;
use crate::ring::{Holder, Key, Seen, UnseenReason};
use crate::sys::kcmp;
use crate::tasks::{process_of, with_descriptor, Tasks};

/// Finds the epoll sets of the machine, or of one process.
///
/// With the TaskFile backend (Linux 6.1 and later, `CAP_BPF` with `CAP_PERFMON`, or
/// `CAP_SYS_ADMIN`) it sees every set that a task has a descriptor of, and that is in the
/// caller's pid namespace or in one below it: also in threads with descriptor tables that
/// they do not share, and in threads that have outlived the leader of their process. It
/// cannot see a set that no task has a descriptor of, but a message in a socket or a
/// ring's table of registered files; nor one whose only descriptor moves to a lower number
/// while the search passes it (dup2(2)).
///
/// With the fdinfo backend it sees the sets of processes that the caller may inspect.
/// Whether two descriptors are one set it knows by kcmp(2) (`CONFIG_KCMP`); where that is
/// missing or not permitted, a set may be found twice, and the set of a thread with a
/// descriptor table that it does not share is missed if another thread has a set under the
/// same number.
///
/// ```no_run
/// use uring_bpf_iter::{EpollFinder, EpollReader};
///
/// # fn main() -> uring_bpf_iter::Result<()> {
/// let mut reader = EpollReader::new();
/// for set in &EpollFinder::new()?.find_all()? {
///     let owner = set.owner();
///     let items = reader.snapshot(set)?;
///     println!("{} ({}): {} items", owner.name, owner.pid, items.len());
/// }
/// # Ok(())
/// # }
/// ```
pub struct EpollFinder {
    search: Box<dyn Search>,
    selection: Selection,
}

impl EpollFinder {
    /// A finder with the best backend that works here.
    ///
    /// # Errors
    ///
    /// As [`EpollFinder::with_backend`].
    pub fn new() -> Result<Self> {
        Self::with_backend(None)
    }

    /// A finder with this backend, or with the best that works here for `None`.
    ///
    /// # Errors
    ///
    /// [`Error::NoBackend`] if it cannot serve: [`Backend::Native`] never can.
    pub fn with_backend(backend: impl Into<Option<Backend>>) -> Result<Self> {
        let (search, selection) = select::select(backend.into(), backend::search_sets)?;
        Ok(Self { search, selection })
    }

    /// The backend in use, and why the preferred ones are not.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Finds the epoll sets of all processes.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if the kernel refuses a call.
    pub fn find_all(&mut self) -> Result<EpollSurvey> {
        self.find(Tasks::All)
    }

    /// Finds the epoll sets that process `pid` (in the caller's pid namespace) has
    /// descriptors of, with all other holders of these sets.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchProcess`] (ESRCH), and with the fdinfo backend
    /// [`Error::NotPermitted`] (EACCES).
    pub fn find_in(&mut self, pid: u32) -> Result<EpollSurvey> {
        crate::pidfd::open_process(pid)?;
        let own = self.find(Tasks::Process(pid))?;
        if own.sets.is_empty() && sees_all_of_one_process() {
            return Ok(own);
        }
        let mut all = self.find(Tasks::All)?;
        all.sets.retain(|set| set.holder(pid, None).is_some());
        all.unseen = own.unseen;
        Ok(all)
    }

    /// Finds the epoll sets in the table of descriptors that thread `tid` (in the caller's
    /// pid namespace) has, alone or together with other threads, one of which may be named
    /// as the holder.
    ///
    /// # Errors
    ///
    /// As [`EpollFinder::find_in`]; if kcmp(2) cannot tell whose table the thread has,
    /// [`Error::NotPermitted`] (EPERM) or [`Error::Os`] (ENOSYS without `CONFIG_KCMP`).
    pub fn find_thread(&mut self, tid: u32) -> Result<EpollSurvey> {
        let pid = process_of(tid)?;
        let mut survey = self.find_in(pid)?;
        let mut tables = HashMap::from([(tid, true)]);
        for set in &mut survey.sets {
            for holder in set.holders.iter().filter(|holder| holder.pid == pid) {
                if tables.contains_key(&holder.tid) {
                    continue;
                }
                let shared = match kcmp::descriptors(tid, holder.tid).map(|order| order.is_eq()) {
                    Ok(shared) => shared,
                    // It has ended meanwhile.
                    Err(e) if e.raw_os_error() == Some(libc::ESRCH) => false,
                    Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                        return Err(Error::NotPermitted {
                            operation: format!("compare the descriptors of thread {tid} (kcmp)"),
                            needs: Permission::ReadProc,
                            source: e,
                        });
                    }
                    Err(e) => {
                        let other = holder.tid;
                        return Err(Error::os(format!("kcmp of threads {tid} and {other}"), e));
                    }
                };
                tables.insert(holder.tid, shared);
            }
            let is_its = |holder: &Holder| holder.pid == pid && tables[&holder.tid];
            // That of the thread is the first of its process.
            set.holders
                .sort_by_key(|holder| (holder.pid, !is_its(holder)));
        }
        let has = |set: &EpollSet| {
            set.holder(pid, None)
                .is_some_and(|holder| tables[&holder.tid])
        };
        survey.sets.retain(has);
        Ok(survey)
    }

    /// Finds the epoll sets that are descriptor `fd` of process `pid`: several if threads
    /// have descriptor tables that they do not share.
    ///
    /// # Errors
    ///
    /// As [`EpollFinder::find_in`]; [`Error::NoSuchDescriptor`] (EBADF) and
    /// [`Error::NotAnEpoll`] (EOPNOTSUPP).
    pub fn find_fd(&mut self, pid: u32, fd: RawFd) -> Result<EpollSurvey> {
        let mut survey = self.find_in(pid)?;
        survey
            .sets
            .retain(|set| set.holder(pid, Some(fd)).is_some());
        if !survey.sets.is_empty() || !survey.unseen.is_empty() {
            return Ok(survey);
        }
        let what = with_descriptor(pid, fd, EPOLL)?.1.what;
        Err(match what == EPOLL {
            true => Error::malformed(
                "the search for epoll sets",
                format!("it did not see descriptor {fd} of process {pid}, which is one"),
            ),
            false => Error::NotAnEpoll { pid, fd, what },
        })
    }

    /// Looks again, a few times, if descriptors kept changing.
    fn find(&mut self, tasks: Tasks) -> Result<EpollSurvey> {
        let start = Instant::now();
        let mut seen = self.search.look(tasks, false)?;
        for _ in 1..LOOKS {
            let busy = |seen: &Seen| {
                let mut all = seen.unseen.iter();
                all.any(|unseen| unseen.why == UnseenReason::DescriptorsChanging)
            };
            if !busy(&seen) || start.elapsed() > ENOUGH {
                break;
            }
            std::thread::sleep(PAUSE);
            seen = self.search.look(tasks, false)?;
        }
        Ok(survey(seen, self.selection.backend))
    }
}

/// The sets, each once with all its holders.
fn survey(mut seen: Seen, backend: Backend) -> EpollSurvey {
    let mut by_set: HashMap<Key, Vec<(Holder, u64)>> = HashMap::new();
    for sighting in seen.sightings {
        let held = (sighting.holder, sighting.files);
        by_set.entry(sighting.key).or_default().push(held);
    }
    // The numbers that fdinfo gives are of one look.
    let is_lasting = backend == Backend::TaskFile;
    let set = |((set, inode), holders)| EpollSet {
        set: if is_lasting { set } else { 0 },
        inode,
        holders: order(holders),
    };
    let mut sets: Vec<EpollSet> = by_set.into_iter().map(set).collect();
    sets.sort_by_key(|set| {
        let first = set.owner();
        (first.pid, first.via, first.tid)
    });
    seen.unseen.sort_by_key(|unseen| unseen.pid);
    seen.unseen.dedup();
    EpollSurvey {
        sets,
        unseen: seen.unseen,
    }
}

impl fmt::Debug for EpollFinder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpollFinder")
            .field("backend", &self.selection.backend)
            .finish_non_exhaustive()
    }
}
