//! The interface of a backend to the code above it.

use std::path::PathBuf;
use std::time::Duration;

use crate::backend::select::NotOpened;
use crate::choice::Backend;
use crate::error::{Error, Limitation, Operation, Result};
use crate::locator::Locator;
use crate::record::Snapshot;
use crate::retry::Retry;
use crate::ring::Seen;
use crate::tasks::Tasks;

/// The way in which a table is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Consistent, without waiting for a lock of a ring.
    Consistent,
    /// Under the lock, with a limit to the wait for it.
    Locked(Duration),
    /// Once, without lock or proof.
    Raw,
}

impl How {
    /// The bounds of trying for a lock: the limit of this read, if it has one.
    pub(crate) fn bounds(self, retry: &Retry) -> Retry {
        match self {
            Self::Locked(limit) => Retry {
                attempts: u32::MAX,
                deadline: limit,
                ..*retry
            },
            Self::Consistent | Self::Raw => *retry,
        }
    }
}

/// Reads one table, again and again.
pub(crate) trait Reader<R>: Send + Sync {
    /// The table's ring or epoll set.
    fn locator(&self) -> &Locator;

    /// Turns to another one; what is loaded stays loaded where it serves.
    fn attach(&mut self, locator: Locator) -> Result<(), NotOpened>;

    /// Reads the table: of the buffer in this slot, where a ring has several.
    fn read(&mut self, how: How, slot: u64, retry: &Retry) -> Result<Snapshot<'_, R>>;

    /// The path of the file in a slot, `None` for an empty one.
    fn path(&mut self, _slot: u64, _retry: &Retry) -> Result<Option<PathBuf>> {
        Err(Error::Unsupported {
            backend: self.backend(),
            what: Operation::TellPath,
            why: Limitation::NeedsNative,
        })
    }

    fn backend(&self) -> Backend;
}

/// A reader, or why there is none.
pub(crate) type Opened<R> = Result<Box<dyn Reader<R>>, NotOpened>;

/// Searches processes for rings, or for epoll sets.
pub(crate) trait Search: Send + Sync {
    /// Looks once at these tasks; at their mappings, too, if asked. A thread has the
    /// descriptors that it uses and the mappings of its process.
    fn look(&mut self, tasks: Tasks, mappings: bool) -> Result<Seen>;

    /// False where another look at what was busy shows nothing more.
    fn gains_by_another_look(&self) -> bool;
}
