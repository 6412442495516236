//! Reads the table of one ring from its fdinfo.

use std::mem;

use crate::backend::fdinfo::file::Fdinfo;
use crate::backend::fdinfo::proc::{self, list_consistency};
use crate::backend::fdinfo::text::{parse, RingText, Text};
use crate::backend::reader::{How, Opened, Reader};
use crate::backend::select::NotOpened;
use crate::choice::Backend;
use crate::error::{Contention, Error, Limitation, Missed, Operation, Result};
use crate::kernel;
use crate::locator::Locator;
use crate::record::{BufFields, Consistency, RegisteredBuf, Snapshot};
use crate::retry::Retry;
use crate::ring::Via;

/// Opens the table of a ring that has a descriptor.
pub(crate) fn open(locator: Locator) -> Opened<RegisteredBuf> {
    Ok(Box::new(BufReader {
        source: Source::open(locator)?,
        text: Vec::new(),
        records: Vec::new(),
    }))
}

/// Reads the table of one ring, again and again.
struct BufReader {
    source: Source,
    text: Vec<u8>,
    records: Vec<RegisteredBuf>,
}

impl BufReader {
    fn read_once(&mut self) -> Result<Consistency, Missed> {
        let memory = mem::take(&mut self.records);
        let Text::Ring(RingText {
            bufs: Some(bufs), ..
        }) = self.source.read(&mut self.text, memory)?
        else {
            return Err(Missed::Busy(Contention::LockHeldUnseen));
        };
        self.records = bufs;
        Ok(list_consistency(&self.records))
    }
}

impl Reader<RegisteredBuf> for BufReader {
    fn backend(&self) -> Backend {
        Backend::Fdinfo
    }

    fn locator(&self) -> &Locator {
        &self.source.locator
    }

    fn attach(&mut self, locator: Locator) -> Result<(), NotOpened> {
        self.source = Source::open(locator)?;
        Ok(())
    }

    fn read(&mut self, how: How, _slot: u64, retry: &Retry) -> Result<Snapshot<'_, RegisteredBuf>> {
        let name = self.source.locator.name();
        let (consistency, attempts) = how.bounds(retry).run(name, || self.read_once())?;
        Ok(Snapshot {
            records: &self.records,
            consistency,
            backend: Backend::Fdinfo,
            unknown: BufFields::all(),
            attempts,
        })
    }
}

/// A ring by one of its descriptors, and by the next one when that is the ring no more.
pub(super) struct Source {
    pub(super) locator: Locator,
    /// The descriptors that were not asked yet, the next one last.
    others: Vec<(u32, i32)>,
    /// Of the one that was asked last.
    fdinfo: Fdinfo,
}

impl Source {
    /// Whether a descriptor still is this ring is seen when it is read.
    pub(super) fn open(locator: Locator) -> Result<Self, NotOpened> {
        proc::check()?;
        let mut others: Vec<(u32, i32)> = locator
            .places
            .iter()
            .rev()
            .filter_map(|place| match place.via {
                Via::Descriptor(fd) => Some((place.tid, fd)),
                _ => None,
            })
            .collect();
        if others.is_empty() {
            return Err(NotOpened::Failed(Error::Unsupported {
                backend: Backend::Fdinfo,
                what: Operation::ReadWithoutDescriptor,
                why: Limitation::OnlyMapped,
            }));
        }
        let fdinfo = open_next(&mut others)?.ok_or_else(|| locator.gone())?;
        Ok(Self {
            locator,
            others,
            fdinfo,
        })
    }

    /// The text of the first descriptor that still is this ring.
    pub(super) fn read(&mut self, bytes: &mut Vec<u8>, memory: Vec<RegisteredBuf>) -> Result<Text> {
        let mut memory = memory;
        loop {
            if self.fdinfo.read(bytes)? {
                let memory = mem::take(&mut memory);
                let text = parse(bytes, kernel::page_shift(), self.fdinfo.path(), memory)?;
                // The number may have gone to another file. (The inode is
                // printed since 5.14.)
                if text.inode().is_none_or(|inode| inode == self.locator.inode) {
                    return Ok(text);
                }
            }
            self.fdinfo = open_next(&mut self.others)?.ok_or_else(|| self.locator.gone())?;
        }
    }
}

/// The first that is still there, taken off with those that are not.
fn open_next(descriptors: &mut Vec<(u32, i32)>) -> Result<Option<Fdinfo>> {
    while let Some((tid, fd)) = descriptors.last() {
        let opened = Fdinfo::open(*tid, *fd)?;
        descriptors.pop();
        if opened.is_some() {
            return Ok(opened);
        }
    }
    Ok(None)
}
