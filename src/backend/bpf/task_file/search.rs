//! Searches tasks for the ways in which they hold rings.

use std::ffi::CStr;
use std::os::fd::AsFd;

use crate::backend::bpf::iterator;
use crate::backend::bpf::program::{Forms, Programs};
use crate::backend::bpf::require;
use crate::backend::bpf::wire;
use crate::backend::reader::Search;
use crate::backend::select::NotOpened;
use crate::error::{Error, Result};
use crate::kernel::page_shift;
use crate::record::Consistency;
use crate::ring::{
    Charged, Holder, Pinned, Queue, Ring, Seen, SetupFlags, Sighting, SqPoll, Unseen, UnseenReason,
    Via,
};
use crate::sys::bpf::{self, Object};
use crate::sys::link::Tasks;
use crate::sys::shared::Shared;

const FIND: Forms = Forms {
    direct: &[c"find_rings"],
    compat: &[
        c"find_rings_file_compat",
        c"find_rings_registered_compat",
        c"find_rings_mapped_compat",
    ],
};

/// The walks of one search, in this order: by which program, and for which part of the
/// ways to hold a ring. There are those of the form that is loaded.
const WALKS: [(&CStr, u8); 5] = [
    (c"find_rings", wire::FIND_HELD),
    (c"find_rings", wire::FIND_MAPPED),
    (c"find_rings_file_compat", wire::FIND_HELD),
    (c"find_rings_registered_compat", wire::FIND_HELD),
    (c"find_rings_mapped_compat", wire::FIND_MAPPED),
];

/// The number of sightings that there is room for at first: more take another load.
const FIRST: usize = 8192;

/// Searches tasks for the ways in which they hold rings.
pub(crate) struct Finder {
    request: Shared<wire::FindRequest>,
    reply: Shared<wire::FindReply>,
    sightings: Shared<wire::RingSighting>,
    capacity: usize,
    runs: u64,
    programs: Programs,
}

impl Finder {
    pub(crate) fn open() -> Result<Self, NotOpened> {
        require::bpf()?;
        Self::with_capacity(FIRST)
    }

    fn with_capacity(capacity: usize) -> Result<Self, NotOpened> {
        let entries = u32::try_from(capacity).unwrap_or(u32::MAX);
        let programs = Programs::load(
            || {
                let mut object = Object::open(bpf::rings_object())?;
                object.set_max_entries(c"sightings", entries)?;
                Ok(object)
            },
            FIND,
        )?;
        let fail = |e| Error::os("mmap of a BPF map", e);
        let fd = |name| programs.object.map_fd(name).map_err(fail);
        Ok(Self {
            request: Shared::map(fd(c".bss.request")?, 1).map_err(fail)?,
            reply: Shared::map(fd(c".bss.reply")?, 1).map_err(fail)?,
            sightings: Shared::map(fd(c"sightings")?, capacity).map_err(fail)?,
            capacity,
            runs: 0,
            programs,
        })
    }

    /// Walks, one time after the other into the same map: the number of sightings.
    fn walk(&mut self, pid: Option<u32>, mappings: bool) -> Result<usize> {
        self.runs += 1;
        let fail = |e| Error::os("use a RingFinder", e);
        self.reply.write(wire::FindReply::default()).map_err(fail)?;
        let tasks = pid.map_or(Tasks::All, Tasks::Process);
        let loaded = self.programs.names;
        let wanted =
            |program, part| loaded.contains(&program) && (mappings || part != wire::FIND_MAPPED);
        for (program, part) in WALKS {
            if !wanted(program, part) {
                continue;
            }
            self.request
                .write(wire::FindRequest {
                    run: self.runs,
                    page_shift: page_shift(),
                    part,
                    pad: [0; 6],
                })
                .map_err(fail)?;
            let link = self.programs.link(program, tasks)?;
            iterator::walk_tasks(link.as_fd())?;
        }
        let nr = self.reply.read().map_err(fail)?.nr;
        Ok(usize::try_from(nr).unwrap_or(usize::MAX))
    }

    /// Room for twice as many: the next look may see more.
    fn grow(&mut self, nr: usize) -> Result<()> {
        let capacity = nr.saturating_mul(2);
        if u32::try_from(capacity).is_err() || capacity <= self.capacity {
            let what = format!("{nr} sightings");
            return Err(Error::malformed("the search for rings", what));
        }
        *self = Self::with_capacity(capacity).map_err(|e| match e {
            NotOpened::Failed(error) => error,
            NotOpened::Refused(reason) => Error::os(
                format!("make room for {nr} sightings of rings: {reason}"),
                std::io::ErrorKind::OutOfMemory,
            ),
        })?;
        Ok(())
    }
}

impl Search for Finder {
    /// Comes back with more room as often as there were more sightings than room.
    fn look(&mut self, pid: Option<u32>, mappings: bool) -> Result<Seen> {
        loop {
            let nr = self.walk(pid, mappings)?;
            if let Some(sightings) = self.sightings.get(nr) {
                return decode(sightings);
            }
            self.grow(nr)?;
        }
    }

    fn gains_by_another_look(&self) -> bool {
        true
    }
}

fn decode(raw: &[wire::RingSighting]) -> Result<Seen> {
    let mut seen = Seen::default();
    seen.sightings.reserve(raw.len());
    for (at, row) in raw.iter().enumerate() {
        let via = match row.via {
            wire::VIA_DESCRIPTOR => Via::Descriptor(row.fd),
            wire::VIA_REGISTERED => Via::Registered(row.fd.unsigned_abs()),
            wire::VIA_MAPPING => Via::Mapping,
            wire::VIA_UNSEEN => {
                seen.unseen.push(unseen(row, UnseenReason::MmapLocked));
                continue;
            }
            wire::VIA_UNSEEN_FDS => {
                seen.unseen
                    .push(unseen(row, UnseenReason::DescriptorsChanging));
                continue;
            }
            other => {
                return Err(Error::malformed(
                    "the search for rings",
                    format!("sighting {at} has kind {other}"),
                ))
            }
        };
        seen.sightings.push(decode_one(row, via));
    }
    Ok(seen)
}

fn unseen(row: &wire::RingSighting, why: UnseenReason) -> Unseen {
    Unseen { pid: row.pid, why }
}

fn decode_one(row: &wire::RingSighting, via: Via) -> Sighting {
    let has = |flag| row.flags & flag != 0;
    Sighting {
        key: (row.ring, row.inode),
        holder: Holder {
            pid: row.pid,
            tid: row.tid,
            via,
            uid: row.uid,
            name: wire::comm(&row.comm),
        },
        files: row.files,
        ring: has(wire::RING_DESCRIBED).then(|| ring(row)),
    }
}

fn ring(row: &wire::RingSighting) -> Ring {
    let page = rustix::param::page_size() as u64;
    let bytes = |pages: u64| pages.saturating_mul(page);
    let has = |flag| row.flags & flag != 0;
    Ring {
        creator_uid: Some(row.creator_uid),
        flags: Some(SetupFlags::from_bits_retain(row.setup_flags)),
        sq: Some(Queue {
            entries: row.sq_entries,
            head: row.sq_head,
            tail: row.sq_tail,
        }),
        cq: Some(Queue {
            entries: row.cq_entries,
            head: row.cq_head,
            tail: row.cq_tail,
        }),
        sqpoll: (row.setup_flags & SetupFlags::SQPOLL.bits() != 0).then(|| SqPoll {
            tid: (has(wire::RING_SQPOLL_THREAD) && row.sqpoll_tid != 0).then_some(row.sqpoll_tid),
            cpu: u32::try_from(row.sqpoll_cpu).ok(),
        }),
        // All bits set is a table that is just being changed.
        nr_bufs: (row.nr_bufs != u32::MAX).then_some(row.nr_bufs),
        nr_files: (row.nr_files != u32::MAX).then_some(row.nr_files),
        nr_files_filled: (row.nr_files_filled != u32::MAX).then_some(row.nr_files_filled),
        pinned: has(wire::RING_SUM_VERIFIED).then(|| Pinned {
            consistency: Consistency::Verified,
            buffers: row.nr_filled,
            bytes: bytes(row.pages),
            accounted: has(wire::RING_ACCT_KNOWN).then(|| bytes(row.acct_pages)),
        }),
        charged: Some(match has(wire::RING_CHARGED) {
            true => Charged::User {
                uid: row.charged_uid,
                locked_bytes: bytes(row.user_locked_pages),
            },
            false => Charged::Exempt,
        }),
        ..Ring::unknown(row.inode)
    }
}
