//! Reads the table of one ring.

use std::os::fd::OwnedFd;

use crate::backend::program::{self, Program, Twins};
use crate::backend::select::{check_bpf, NotOpened};
use crate::backend::task_file::page_shift;
use crate::error::{Contention, Error, LockOwner, Result};
use crate::iter::{Address, Place};
use crate::record::wire::{comm, Mode, Status, WalkReply, WalkRequest, MAX_BUFS};
use crate::record::RegisteredBuf;
use crate::ring::Via;
use crate::sys::bpf::{self, Object};
use crate::sys::shared::Shared;

const DUMP_FILE: Twins = Twins {
    direct: c"dump_bufs_file",
    compat: c"dump_bufs_file_compat",
};
const DUMP_TASK: Twins = Twins {
    direct: c"dump_bufs_task",
    compat: c"dump_bufs_task_compat",
};
const DUMP_MAPPED: Twins = Twins {
    direct: c"dump_bufs_task",
    compat: c"dump_bufs_vma_compat",
};
/// The maps of `bpf/bufs.bpf.c`.
pub(crate) struct Maps {
    pub(crate) request: Shared<WalkRequest>,
    pub(crate) reply: Shared<WalkReply>,
    pub(crate) records: Shared<RegisteredBuf>,
}

impl Maps {
    pub(crate) fn of(object: &Object) -> Result<Self> {
        let fail = |e| Error::os("mmap of a BPF map", e);
        let fd = |name| object.map_fd(name).map_err(fail);
        Ok(Self {
            request: Shared::map(fd(c".bss.request")?, 1).map_err(fail)?,
            reply: Shared::map(fd(c".bss.reply")?, 1).map_err(fail)?,
            records: Shared::map(fd(c".bss.records")?, MAX_BUFS).map_err(fail)?,
        })
    }

    /// The records that the last run wrote, after a look at each.
    pub(crate) fn records(&self, nr: usize) -> Result<&[RegisteredBuf]> {
        let records = self.records.get(nr).ok_or_else(|| {
            Error::malformed("the walk", format!("{nr} records of {MAX_BUFS} that fit"))
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

/// Reads the table of one ring, again and again.
pub(crate) struct Walker {
    address: Address,
    /// Which place of the address is linked.
    at: usize,
    link: OwnedFd,
    maps: Maps,
    program: Program,
}

impl Walker {
    pub(crate) fn open(address: Address) -> Result<Self, NotOpened> {
        check_bpf().map_err(NotOpened::Refused)?;
        let (program, link) = Self::link(&address, 0)?;
        Ok(Self {
            maps: Maps::of(&program.object)?,
            address,
            at: 0,
            link,
            program,
        })
    }

    fn link(address: &Address, at: usize) -> Result<(Program, OwnedFd), NotOpened> {
        let place = address.places[at];
        let twins = match place.via {
            Via::Descriptor(_) => DUMP_FILE,
            Via::Registered(_) => DUMP_TASK,
            Via::Mapping => DUMP_MAPPED,
        };
        let program = Program::load(|| Object::open(bpf::bufs_object()), twins)?;
        let link = program.link(Some(place.pid))?;
        Ok((program, link))
    }

    /// Another ring; the program stays loaded if it fits.
    pub(crate) fn attach(&mut self, address: Address) -> Result<(), NotOpened> {
        let same = |a: Place, b: Place| {
            matches!(
                (a.via, b.via),
                (Via::Descriptor(_), Via::Descriptor(_))
                    | (Via::Registered(_), Via::Registered(_))
                    | (Via::Mapping, Via::Mapping)
            )
        };
        if same(address.places[0], self.address.places[self.at]) {
            self.link = self.program.link(Some(address.places[0].pid))?;
        } else {
            let (program, link) = Self::link(&address, 0)?;
            self.maps = Maps::of(&program.object)?;
            self.link = link;
            self.program = program;
        }
        self.address = address;
        self.at = 0;
        Ok(())
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Walks the table once: its size, or what was in the way.
    pub(crate) fn walk(&mut self, mode: Mode) -> Result<Result<usize, Contention>> {
        loop {
            let reply = self.run(mode)?;
            if reply.status() != Some(Status::NotFound) {
                return outcome(&self.address, &reply);
            }
            // This holder let go of it; another may still have it.
            if self.at + 1 == self.address.places.len() {
                return Err(self.address.gone());
            }
            let (program, link) = Self::link(&self.address, self.at + 1).map_err(|e| match e {
                NotOpened::Failed(error) => error,
                NotOpened::Refused(_) => self.address.gone(),
            })?;
            self.maps = Maps::of(&program.object)?;
            self.link = link;
            self.program = program;
            self.at += 1;
        }
    }

    /// Who holds `uring_lock` now, if somebody does.
    pub(crate) fn peek(&mut self) -> Result<WalkReply> {
        let reply = self.run(Mode::Peek)?;
        match reply.status() {
            Some(Status::Done) => Ok(reply),
            _ => Err(self.address.gone()),
        }
    }

    fn run(&mut self, mode: Mode) -> Result<WalkReply> {
        self.maps.request.write(WalkRequest {
            inode: self.address.inode,
            mode: mode as u32,
            page_shift: page_shift(),
            ..WalkRequest::default()
        });
        self.maps.reply.write(WalkReply::default());
        program::run(&self.link)?;
        Ok(self.maps.reply.read())
    }

    pub(crate) fn records(&self, nr: usize) -> Result<&[RegisteredBuf]> {
        self.maps.records(nr)
    }
}

/// What a reply says about the walk.
pub(crate) fn outcome(address: &Address, reply: &WalkReply) -> Result<Result<usize, Contention>> {
    Ok(match reply.status() {
        Some(Status::Done) => Ok(reply.nr_slots as usize),
        Some(Status::Changed) => Err(Contention::Changed),
        Some(Status::LockHeld) => Err(Contention::LockHeld(owner(reply))),
        Some(Status::TooMany) => {
            return Err(Error::TableTooLarge {
                ring: address.inode,
                slots: reply.nr_slots.into(),
                max: MAX_BUFS,
            })
        }
        Some(Status::NotFound) => return Err(address.gone()),
        Some(Status::CutShort) => {
            return Err(Error::malformed(
                "the walk",
                format!("the kernel ended it before all {} slots", reply.nr_slots),
            ))
        }
        Some(Status::NotLocked) | None => {
            return Err(Error::malformed(
                "the walk",
                format!("status {}", reply.status),
            ))
        }
    })
}

pub(crate) fn owner(reply: &WalkReply) -> LockOwner {
    LockOwner {
        pid: (reply.owner_pid != 0).then_some(reply.owner_pid),
        tid: (reply.owner_tid != 0).then_some(reply.owner_tid),
        name: comm(&reply.owner_comm),
        sleeps: reply.owner_sleeps != 0,
    }
}
