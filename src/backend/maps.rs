//! The maps by which the engine and the programs of `bpf/dump.h` speak.

use std::io;

use crate::backend::task_file::page_shift;
use crate::error::{Error, Result};
use crate::record::wire::{WalkReply, WalkRequest};
use crate::record::Dumped;
use crate::sys::bpf::{Loaded, Object};
use crate::sys::shared::Shared;

/// An object of `R`, with room for so many records.
pub(crate) fn open<R: Dumped>(capacity: usize) -> io::Result<Object> {
    let mut object = Object::open(R::object())?;
    if R::ROOM.first < R::ROOM.max {
        let entries = u32::try_from(capacity).map_err(|_| io::ErrorKind::InvalidInput)?;
        object.set_max_entries(R::ROOM.map, entries)?;
    }
    Ok(object)
}

/// Room for this many records and some more, `None` if that is not to be had.
pub(crate) fn room_for<R: Dumped>(records: usize) -> Option<usize> {
    (records <= R::ROOM.max).then(|| records.saturating_add(records / 4).min(R::ROOM.max))
}

/// The maps of an object of `R`.
pub(crate) struct Maps<R> {
    request: Shared<WalkRequest>,
    reply: Shared<WalkReply>,
    records: Shared<R>,
    capacity: usize,
}

impl<R: Dumped> Maps<R> {
    pub(crate) fn of(object: &Loaded, capacity: usize) -> Result<Self> {
        let fail = |e| Error::os("mmap of a BPF map", e);
        let fd = |name| object.map_fd(name).map_err(fail);
        Ok(Self {
            request: Shared::map(fd(c".bss.request")?, 1).map_err(fail)?,
            reply: Shared::map(fd(c".bss.reply")?, 1).map_err(fail)?,
            records: Shared::map(fd(R::ROOM.map)?, capacity).map_err(fail)?,
            capacity,
        })
    }

    /// Puts a request where the next run finds it.
    pub(crate) fn ask(&mut self, request: WalkRequest) -> Result<()> {
        let written = self.request.write(WalkRequest {
            capacity: u32::try_from(self.capacity).unwrap_or(u32::MAX),
            page_shift: page_shift(),
            page_base: R::page_base().unwrap_or(0),
            ..request
        });
        written
            .and_then(|()| self.reply.write(WalkReply::default()))
            .map_err(|e| Error::os("use an iterator", e))
    }

    /// What the last run answered.
    pub(crate) fn answer(&self) -> Result<WalkReply> {
        self.reply
            .read()
            .map_err(|e| Error::os("use an iterator", e))
    }

    /// The records that the last run wrote, after a look at each.
    pub(crate) fn records(&self, nr: usize) -> Result<&[R]> {
        let records = self.records.get(nr).ok_or_else(|| {
            Error::malformed(
                "the walk",
                format!("{nr} records of {} that fit", self.capacity),
            )
        })?;
        let page_shift = page_shift();
        for (at, record) in records.iter().enumerate() {
            record
                .check(at, page_shift)
                .map_err(|what| Error::malformed("the walk", what))?;
        }
        Ok(records)
    }
}
