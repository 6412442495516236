//! Stands for `bpf/` in a build without the feature `bpf`: the same calls, all of
//! them refused.

use std::marker::PhantomData;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use crate::backend::facts::{Descriptor, LinkInfo};
use crate::backend::reader::{Opened, Search};
use crate::backend::select::NotOpened;
use crate::choice::{Backend, Reason};
use crate::error::{Error, Missed, Result};
use crate::locator::{Locator, Name};
use crate::record::{EpollItem, RegisteredBuf, RegisteredFile, Segment};

/// The facts that BPF would need about a table.
pub(crate) struct Table<R>(PhantomData<fn() -> R>);

pub(crate) const BUFS: Table<RegisteredBuf> = Table(PhantomData);
pub(crate) const FILES: Table<RegisteredFile> = Table(PhantomData);
pub(crate) const EPOLL: Table<EpollItem> = Table(PhantomData);
pub(crate) const PAGES: Table<Segment> = Table(PhantomData);

fn refused<T>() -> Result<T, NotOpened> {
    Err(NotOpened::Refused(Reason::NotBuilt))
}

pub(crate) fn native<R>(_: &'static Table<R>, _: Locator) -> Opened<R> {
    refused()
}

pub(crate) fn task_file<R>(_: &'static Table<R>, _: Locator) -> Opened<R> {
    refused()
}

pub(crate) fn search() -> Result<Box<dyn Search>, NotOpened> {
    refused()
}

pub(crate) fn search_sets() -> Result<Box<dyn Search>, NotOpened> {
    refused()
}

/// The processes that make calls in place of this one: none.
pub(crate) fn observers() -> Vec<u32> {
    Vec::new()
}

/// Lists the descriptors of processes.
pub(crate) enum Lister {}

impl Lister {
    pub(crate) fn open() -> Result<Self, NotOpened> {
        refused()
    }

    pub(crate) fn list(
        &mut self,
        _tid: u32,
    ) -> Result<impl Iterator<Item = Descriptor>, NotOpened> {
        refused::<std::iter::Empty<_>>()
    }
}

/// Links of native iterators.
pub(crate) mod link {
    use super::*;

    fn no_link<T>() -> Result<T> {
        refused().map_err(|e: NotOpened| e.of(Backend::Native))
    }

    pub(crate) fn target<R>(_: &'static Table<R>) -> String {
        String::new()
    }

    pub(crate) fn attach<R>(_: &'static Table<R>, _: BorrowedFd<'_>) -> Result<OwnedFd> {
        no_link()
    }

    pub(crate) fn open_pinned(_: &Path) -> Result<OwnedFd> {
        no_link()
    }

    pub(crate) fn pin(_: BorrowedFd<'_>, _: &Path) -> Result<()> {
        no_link()
    }

    pub(crate) fn info(_: BorrowedFd<'_>) -> Result<Option<LinkInfo>> {
        no_link()
    }

    pub(crate) fn iterate(_: BorrowedFd<'_>, _: Name) -> Result<OwnedFd> {
        no_link()
    }

    pub(crate) fn read(_: &OwnedFd, _: &mut [u8], _: Name) -> Result<usize, Missed> {
        no_link().map_err(Missed::Failed)
    }

    pub(crate) fn check<R>(_: &'static Table<R>, _: &[R], _: usize) -> Result<(), String> {
        Err(Error::NoBackend {
            refusals: Vec::new(),
        }
        .to_string())
    }
}
