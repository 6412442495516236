//! The meaning of the reply of a walk.

use std::io;

use crate::backend::bpf::table::Table;
use crate::backend::bpf::wire::{comm, Status, WalkReply};
use crate::backend::select::NotOpened;
use crate::error::{Contention, Error, LockOwner, Missed};
use crate::locator::Locator;

/// The size of the table that was walked, or what was in the way.
pub(crate) fn judge<R>(
    table: &Table<R>,
    locator: &Locator,
    slot: u64,
    reply: &WalkReply,
) -> Result<usize, Missed> {
    Err(match reply.status() {
        Some(Status::Done) => return Ok(reply.nr_slots as usize),
        Some(Status::Changed | Status::Unseen) => Missed::Busy(Contention::Changed),
        Some(Status::LockHeld) => Missed::Busy(Contention::LockHeld(owner(reply))),
        Some(Status::TooMany) => Missed::Failed(Error::TableTooLarge {
            what: locator.name().to_string(),
            slots: reply.nr_slots.into(),
            max: table.max,
        }),
        Some(Status::NotFound | Status::Another) => Missed::Failed(locator.gone()),
        Some(Status::CutShort) => Missed::Failed(Error::malformed(
            "the walk",
            format!("the kernel ended it before all {} slots", reply.nr_slots),
        )),
        Some(Status::NoSlot) => Missed::Failed(Error::NoSuchSlot {
            ring: locator.inode,
            index: slot,
            slots: reply.nr_slots.into(),
        }),
        Some(Status::NotLocked | Status::NoLookup) | None => Missed::Failed(Error::malformed(
            "the walk",
            format!("status {}", reply.status),
        )),
    })
}

/// The task that held the lock.
pub(crate) fn owner(reply: &WalkReply) -> LockOwner {
    LockOwner {
        pid: (reply.owner_pid != 0).then_some(reply.owner_pid),
        tid: (reply.owner_tid != 0).then_some(reply.owner_tid),
        name: comm(&reply.owner_comm),
        sleeps: reply.owner_sleeps != 0,
    }
}

/// The error for programs that could not be loaded again with more room.
pub(crate) fn no_room(capacity: usize, error: NotOpened) -> Error {
    match error {
        NotOpened::Failed(error) => error,
        NotOpened::Refused(reason) => Error::os(
            format!("make room for {capacity} records: {reason}"),
            io::ErrorKind::OutOfMemory,
        ),
    }
}
