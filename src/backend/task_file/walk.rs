//! Reads the table of one ring.

use std::io;
use std::os::fd::OwnedFd;

use crate::backend::program::{self, Forms, Programs};
use crate::backend::select::{check_bpf, NotOpened};
use crate::backend::task_file::page_shift;
use crate::backend::Reason;
use crate::error::{Contention, Error, LockOwner, Result};
use crate::iter::{Address, Place};
use crate::record::wire::{comm, Mode, Status, WalkReply, WalkRequest, MAX_BUFS};
use crate::record::RegisteredBuf;
use crate::ring::Via;
use crate::sys::bpf::{self, Object};
use crate::sys::shared::Shared;

const BY_FILE: Forms = Forms {
    direct: &[c"dump_bufs_file"],
    compat: &[c"dump_bufs_file_compat"],
};
const BY_TASK: Forms = Forms {
    direct: &[c"dump_bufs_task"],
    compat: &[c"dump_bufs_task_compat"],
};
const BY_MAPPING: Forms = Forms {
    direct: &[c"dump_bufs_task"],
    compat: &[c"dump_bufs_vma_compat"],
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

    /// Puts a request where the next run finds it.
    pub(crate) fn ask(&mut self, request: WalkRequest) -> Result<()> {
        let written = self.request.write(request);
        written
            .and_then(|()| self.reply.write(WalkReply::default()))
            .map_err(|e| Error::os("use a UringBufIter", e))
    }

    /// What the last run answered.
    pub(crate) fn answer(&self) -> Result<WalkReply> {
        self.reply
            .read()
            .map_err(|e| Error::os("use a UringBufIter", e))
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
    programs: Programs,
}

impl Walker {
    pub(crate) fn open(address: Address) -> Result<Self, NotOpened> {
        check_bpf().map_err(NotOpened::Refused)?;
        let (programs, link) = load(address.places[0])?;
        Ok(Self {
            maps: Maps::of(&programs.object)?,
            address,
            at: 0,
            link,
            programs,
        })
    }

    /// Another ring; what is loaded stays loaded if it serves.
    pub(crate) fn attach(&mut self, address: Address) -> Result<(), NotOpened> {
        self.go_to(address.places[0])?;
        self.address = address;
        self.at = 0;
        Ok(())
    }

    fn go_to(&mut self, place: Place) -> Result<(), NotOpened> {
        if place.kind() == self.address.places[self.at].kind() {
            self.link = self
                .programs
                .link(self.programs.names[0], Some(place.pid))?;
        } else {
            let (programs, link) = load(place)?;
            self.maps = Maps::of(&programs.object)?;
            self.link = link;
            self.programs = programs;
        }
        Ok(())
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Walks the table once: its size, or what was in the way.
    pub(crate) fn walk(&mut self, mode: Mode) -> Result<Result<usize, Contention>> {
        let reply = self.look(mode)?;
        outcome(&self.address, &reply)
    }

    /// Looks at the ring at the first place that still has it.
    pub(crate) fn look(&mut self, mode: Mode) -> Result<WalkReply> {
        loop {
            let reply = self.run(mode)?;
            if reply.status() != Some(Status::NotFound) {
                return Ok(reply);
            }
            // This holder let go of it; another may still have it. One look
            // at a process sees all that it has of a kind.
            let here = self.address.places[self.at];
            let same = |place: &Place| place.pid == here.pid && place.kind() == here.kind();
            let next = (self.at + 1..self.address.places.len())
                .find(|&at| !same(&self.address.places[at]))
                .ok_or_else(|| self.address.gone())?;
            self.go_to(self.address.places[next]).map_err(|e| match e {
                NotOpened::Failed(error) => error,
                NotOpened::Refused(_) => self.address.gone(),
            })?;
            self.at = next;
        }
    }

    fn run(&mut self, mode: Mode) -> Result<WalkReply> {
        self.maps.ask(WalkRequest {
            inode: self.address.inode,
            mode: mode as u32,
            page_shift: page_shift(),
            ..WalkRequest::default()
        })?;
        program::run(&self.link)?;
        self.maps.answer()
    }

    pub(crate) fn records(&self, nr: usize) -> Result<&[RegisteredBuf]> {
        self.maps.records(nr)
    }
}

fn load(place: Place) -> Result<(Programs, OwnedFd), NotOpened> {
    let forms = match place.via {
        Via::Descriptor(_) => BY_FILE,
        Via::Registered(_) => BY_TASK,
        Via::Mapping => BY_MAPPING,
    };
    let programs = Programs::load(|| Object::open(bpf::bufs_object()), forms)?;
    let link = programs
        .link(programs.names[0], Some(place.pid))
        .map_err(refuse_if_forbidden)?;
    Ok((programs, link))
}

/// A kernel or security module that loads a program and forbids its use.
fn refuse_if_forbidden(error: Error) -> NotOpened {
    match error {
        Error::Os { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            NotOpened::Refused(Reason::NotPermitted(source))
        }
        error => NotOpened::Failed(error),
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
