//! An epoll set, and the tasks that hold it.

use std::fmt;
use std::os::fd::RawFd;

use crate::ring::{Holder, Unseen};

/// An epoll set that a search has found, with its holders. Its items are read with
/// [`EpollReader`](crate::EpollReader) or [`EpollIter`](crate::EpollIter).
///
/// All epoll sets share one inode, so that nothing but its holders tells a user which one
/// it is; [`EpollSet::same_set`] tells a program.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EpollSet {
    /// Opaque: equal for equal sets, as long as they live; 0 if that is not known.
    pub(crate) set: u64,
    /// Of its file, shared by all sets.
    pub(crate) inode: u64,
    /// Never empty.
    pub(crate) holders: Vec<Holder>,
}

impl EpollSet {
    /// Its holders, one at least, by pid: one for each descriptor in each table of
    /// descriptors. Of threads that share a table one is named, the leader of the process
    /// if it is among them.
    pub fn holders(&self) -> &[Holder] {
        &self.holders
    }

    /// The holder that the set is named after: the first one.
    pub fn owner(&self) -> &Holder {
        &self.holders[0]
    }

    /// The first holder of this process, with this descriptor if one is given.
    pub fn holder(&self, pid: u32, fd: Option<RawFd>) -> Option<&Holder> {
        self.holders
            .iter()
            .find(|holder| holder.pid == pid && (fd.is_none() || holder.fd() == fd))
    }

    /// The numbers of the set in the table of descriptors that a holder has, lowest first:
    /// more than one after dup(2).
    pub fn fds_of(&self, holder: &Holder) -> impl Iterator<Item = RawFd> + '_ {
        let (pid, tid) = (holder.pid, holder.tid);
        self.holders
            .iter()
            .filter(move |other| (other.pid, other.tid) == (pid, tid))
            .filter_map(Holder::fd)
    }

    /// True if both are the same epoll set, found while that was open; never for sets that
    /// the fdinfo backend has found.
    pub fn same_set(&self, other: &Self) -> bool {
        self.set != 0 && (self.set, self.inode) == (other.set, other.inode)
    }
}

/// Without the address that is the set's key.
impl fmt::Debug for EpollSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpollSet")
            .field("holders", &self.holders)
            .finish_non_exhaustive()
    }
}

/// The result of a search for epoll sets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[must_use]
#[non_exhaustive]
pub struct EpollSurvey {
    /// The sets that were found, each once, ordered by the first holder.
    pub sets: Vec<EpollSet>,
    /// Processes that could not be searched in full.
    pub unseen: Vec<Unseen>,
}

impl IntoIterator for EpollSurvey {
    type Item = EpollSet;
    type IntoIter = std::vec::IntoIter<EpollSet>;

    /// The sets.
    fn into_iter(self) -> Self::IntoIter {
        self.sets.into_iter()
    }
}

impl<'a> IntoIterator for &'a EpollSurvey {
    type Item = &'a EpollSet;
    type IntoIter = std::slice::Iter<'a, EpollSet>;

    /// The sets.
    fn into_iter(self) -> Self::IntoIter {
        self.sets.iter()
    }
}
