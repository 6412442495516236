//! The maps by which a backend and the programs of `bpf/dump.h` speak.

use std::ffi::CStr;
use std::io;

use crate::backend::bpf::table::Table;
use crate::backend::bpf::wire::{WalkReply, WalkRequest};
use crate::error::{Error, Result};
use crate::kernel::page_shift;
use crate::record::Plain;
use crate::sys::bpf::{Loaded, Object};
use crate::sys::shared::Shared;

/// The map that records are in.
const RECORDS: &CStr = c"records";

/// The object of a table, with room for so many records.
pub(crate) fn open<R>(table: &Table<R>, capacity: usize) -> io::Result<Object> {
    let mut object = Object::open((table.object)())?;
    if table.first < table.max {
        let entries = u32::try_from(capacity).map_err(|_| io::ErrorKind::InvalidInput)?;
        object.set_max_entries(RECORDS, entries)?;
    }
    Ok(object)
}

/// Room for this many records and some more, `None` if there cannot be so much.
pub(crate) fn room_for<R>(table: &Table<R>, records: usize) -> Option<usize> {
    (records <= table.max).then(|| records.saturating_add(records / 4).min(table.max))
}

/// The maps of an object of a table.
pub(crate) struct Maps<R: 'static> {
    table: &'static Table<R>,
    request: Shared<WalkRequest>,
    reply: Shared<WalkReply>,
    records: Shared<R>,
    capacity: usize,
}

impl<R: Plain> Maps<R> {
    pub(crate) fn of(table: &'static Table<R>, object: &Loaded, capacity: usize) -> Result<Self> {
        let fail = |e| Error::os("mmap of a BPF map", e);
        let fd = |name| object.map_fd(name).map_err(fail);
        Ok(Self {
            table,
            request: Shared::map(fd(c".bss.request")?, 1).map_err(fail)?,
            reply: Shared::map(fd(c".bss.reply")?, 1).map_err(fail)?,
            records: Shared::map(fd(RECORDS)?, capacity).map_err(fail)?,
            capacity,
        })
    }

    /// Puts a request where the next walk finds it.
    pub(crate) fn ask(&mut self, request: WalkRequest) -> Result<()> {
        let written = self.request.write(WalkRequest {
            capacity: u32::try_from(self.capacity).unwrap_or(u32::MAX),
            page_shift: page_shift(),
            page_base: (self.table.page_base)().unwrap_or(0),
            ..request
        });
        written
            .and_then(|()| self.reply.write(WalkReply::default()))
            .map_err(|e| Error::os("use an iterator", e))
    }

    /// The answer of the last walk.
    pub(crate) fn answer(&self) -> Result<WalkReply> {
        self.reply
            .read()
            .map_err(|e| Error::os("use an iterator", e))
    }

    /// The records that the last walk wrote, after a check of each.
    pub(crate) fn records(&self, nr: usize) -> Result<&[R]> {
        let records = self.records.get(nr).ok_or_else(|| {
            Error::malformed(
                "the walk",
                format!("{nr} records of {} that fit", self.capacity),
            )
        })?;
        (self.table.check)(records, 0, page_shift())
            .map_err(|what| Error::malformed("the walk", what))?;
        Ok(records)
    }
}
