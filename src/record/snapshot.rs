//! Records that are lent, and how far they can be trusted.

use std::ops::Deref;

use crate::choice::Backend;
use crate::record::{BufFields, RegisteredBuf};

/// How far the records of a [`Snapshot`] belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Consistency {
    /// Read under one hold of the lock (`uring_lock`; of an epoll set
    /// `ep->mtx`): the table at one moment.
    Locked,
    /// Read without the lock, and found unchanged: the lock was free
    /// before each record and at the end, table and size were the same before
    /// and after, two passes gave the same records, and the reader was not
    /// taken off its CPU meanwhile. Several complete changes could still go
    /// unseen, each within the time of one record and each undone
    /// again in time for the second pass; [`Consistency::Locked`] excludes
    /// that, too.
    Verified,
    /// Read without lock or proof. Records may be torn, and of different
    /// moments. Only given when a raw read is asked for, and by fdinfo for an
    /// empty table before Linux 6.18.
    Raw,
}

impl std::fmt::Display for Consistency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Locked => "locked",
            Self::Verified => "verified",
            Self::Raw => "raw",
        })
    }
}

/// The whole table of a ring, lent by the iterator that read it.
///
/// It derefs to a slice with one record a slot, also the empty ones: its
/// length is the size of the table, and a record's position is its index.
/// While it lives the iterator cannot run again, so nothing overwrites it:
///
/// ```compile_fail,E0499
/// # fn twice(iter: &mut uring_bpf_iter::UringBufIter) -> uring_bpf_iter::Result<()> {
/// let first = iter.snapshot()?;
/// let second = iter.snapshot()?; // would write over `first`
/// println!("{} {}", first.len(), second.len());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Snapshot<'a, R = RegisteredBuf> {
    pub(crate) records: &'a [R],
    pub(crate) consistency: Consistency,
    pub(crate) backend: Backend,
    pub(crate) unknown: BufFields,
    pub(crate) attempts: u32,
}

impl<'a, R> Snapshot<'a, R> {
    /// How far the records belong together.
    pub fn consistency(&self) -> Consistency {
        self.consistency
    }

    /// The backend that read it.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The number of attempts that it took, at least 1.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The records, for as long as the iterator is borrowed.
    pub fn records(&self) -> &'a [R] {
        self.records
    }
}

impl Snapshot<'_, RegisteredBuf> {
    /// The fields that this backend fills in, as far as the kernel has them.
    pub fn known_fields(&self) -> BufFields {
        self.unknown.complement()
    }
}

impl<R> Deref for Snapshot<'_, R> {
    type Target = [R];

    fn deref(&self) -> &[R] {
        self.records
    }
}

impl<'a, R> IntoIterator for Snapshot<'a, R> {
    type Item = &'a R;
    type IntoIter = std::slice::Iter<'a, R>;

    fn into_iter(self) -> Self::IntoIter {
        self.records.iter()
    }
}

impl<'a, R> IntoIterator for &Snapshot<'a, R> {
    type Item = &'a R;
    type IntoIter = std::slice::Iter<'a, R>;

    fn into_iter(self) -> Self::IntoIter {
        self.records.iter()
    }
}
