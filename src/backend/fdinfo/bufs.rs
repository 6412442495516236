//! Reads the table of one ring from its fdinfo.

use std::fs;

use crate::backend::fdinfo::proc::{self, is_gone, list_consistency};
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
    Ok(Box::new(BufReader::open(locator)?))
}

/// Reads the table of one ring, again and again.
struct BufReader {
    locator: Locator,
    /// The descriptors of the ring, the one in use last.
    descriptors: Vec<(u32, i32)>,
    records: Vec<RegisteredBuf>,
}

impl BufReader {
    fn open(locator: Locator) -> Result<Self, NotOpened> {
        proc::check()?;
        let descriptors: Vec<(u32, i32)> = locator
            .places
            .iter()
            .rev()
            .filter_map(|place| match place.via {
                Via::Descriptor(fd) => Some((place.pid, fd)),
                _ => None,
            })
            .collect();
        if descriptors.is_empty() {
            return Err(NotOpened::Failed(Error::Unsupported {
                backend: Backend::Fdinfo,
                what: Operation::ReadWithoutDescriptor,
                why: Limitation::OnlyMapped,
            }));
        }
        let mut reader = Self {
            locator,
            descriptors,
            records: Vec::new(),
        };
        reader.text()?;
        Ok(reader)
    }

    /// The text of the first descriptor that still is this ring.
    fn text(&mut self) -> Result<Text> {
        let page_shift = kernel::page_shift();
        while let Some((pid, fd)) = self.descriptors.last() {
            let path = format!("/proc/{pid}/fdinfo/{fd}");
            match fs::read(&path) {
                Ok(bytes) => {
                    let text = parse(&bytes, page_shift, &path)?;
                    // The number may have gone to another file. (The inode is
                    // printed since 5.14.)
                    if text.inode().is_none_or(|inode| inode == self.locator.inode) {
                        return Ok(text);
                    }
                }
                Err(e) if is_gone(&e) => {}
                Err(e) => return Err(proc::failed(&path, e)),
            }
            self.descriptors.pop();
        }
        Err(self.locator.gone())
    }

    fn read_once(&mut self) -> Result<Consistency, Missed> {
        let Text::Ring(RingText {
            bufs: Some(bufs), ..
        }) = self.text()?
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
        &self.locator
    }

    fn attach(&mut self, locator: Locator) -> Result<(), NotOpened> {
        *self = Self::open(locator)?;
        Ok(())
    }

    fn read(&mut self, how: How, _slot: u64, retry: &Retry) -> Result<Snapshot<'_, RegisteredBuf>> {
        let name = self.locator.name();
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
