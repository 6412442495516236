//! Reads a table without its lock, or under it.

use crate::backend::bpf::table::Table;
use crate::backend::bpf::task_file::locked::Locked;
use crate::backend::bpf::task_file::walk::Walker;
use crate::backend::bpf::wire::Mode;
use crate::backend::reader::{How, Reader};
use crate::backend::select::NotOpened;
use crate::choice::Backend;
use crate::error::Result;
use crate::locator::{Kind, Locator};
use crate::record::{BufFields, Consistency, Plain, Snapshot};
use crate::retry::Retry;

/// Reads a table of one ring, or an epoll set.
pub(crate) struct TaskFile<R: 'static> {
    walker: Walker<R>,
    locked: Locked<R>,
}

impl<R: Plain> TaskFile<R> {
    pub(crate) fn open(table: &'static Table<R>, locator: Locator) -> Result<Self, NotOpened> {
        let mut reader = Self {
            walker: Walker::open(table, locator)?,
            locked: Locked::new(table),
        };
        reader.know_set()?;
        Ok(reader)
    }

    /// From here on it is this epoll set, and no other under the same number.
    fn know_set(&mut self) -> Result<()> {
        let locator = self.walker.locator();
        if locator.kind == Kind::Epoll && locator.set == 0 {
            self.walker.peek(0)?;
        }
        Ok(())
    }
}

impl<R: Plain> Reader<R> for TaskFile<R> {
    fn backend(&self) -> Backend {
        Backend::TaskFile
    }

    fn locator(&self) -> &Locator {
        self.walker.locator()
    }

    fn attach(&mut self, locator: Locator) -> Result<(), NotOpened> {
        self.walker.attach(locator);
        Ok(self.know_set()?)
    }

    fn read(&mut self, how: How, slot: u64, retry: &Retry) -> Result<Snapshot<'_, R>> {
        let limit = match how {
            How::Consistent => return self.walker.read(Mode::Verified, slot, retry),
            How::Raw => return self.walker.read(Mode::Raw, slot, retry),
            How::Locked(limit) => limit,
        };
        let nr = self.locked.walk(&mut self.walker, limit, slot)?;
        Ok(Snapshot {
            records: self.locked.records(nr)?,
            consistency: Consistency::Locked,
            backend: Backend::TaskFile,
            unknown: BufFields::empty(),
            attempts: 1,
        })
    }
}
