//! Sees the ways in which tasks hold rings.

use crate::backend::program::{self, Forms, Programs};
use crate::backend::select::{check_bpf, NotOpened};
use crate::backend::task_file::page_shift;
use crate::error::{Error, Result};
use crate::find::{Details, Sighting};
use crate::record::wire;
use crate::record::Consistency;
use crate::ring::{Charged, Holder, Pinned, Queue, SetupFlags, SqPoll, Unseen, Via};
use crate::sys::bpf::{self, Object, Tasks};
use crate::sys::observer;
use crate::sys::shared::Shared;

/// The last one of either is for mappings.
const FIND: Forms = Forms {
    direct: &[c"find_rings_held", c"find_rings_mapped"],
    compat: &[
        c"find_rings_file_compat",
        c"find_rings_registered_compat",
        c"find_rings_mapped_compat",
    ],
};

/// Sees the ways in which tasks hold rings.
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
        check_bpf().map_err(NotOpened::Refused)?;
        Self::with_capacity(1024)
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

    /// All sightings, in all processes or in one. Comes back with more room
    /// as often as there were more of them than room.
    pub(crate) fn sightings(
        &mut self,
        pid: Option<u32>,
        mappings: bool,
    ) -> Result<(Vec<Sighting>, Vec<Unseen>)> {
        loop {
            let nr = self.run(pid, mappings)?;
            if let Some(sightings) = self.sightings.get(nr) {
                return decode(sightings);
            }
            self.grow(nr)?;
        }
    }

    /// Runs the programs, one after the other into the same map: the number of
    /// sightings.
    fn run(&mut self, pid: Option<u32>, mappings: bool) -> Result<usize> {
        self.runs += 1;
        let fail = |e| Error::os("use a RingFinder", e);
        self.request
            .write(wire::FindRequest {
                run: self.runs,
                page_shift: page_shift(),
                pad: [0; 7],
            })
            .map_err(fail)?;
        self.reply.write(wire::FindReply::default()).map_err(fail)?;
        let tasks = pid.map_or(Tasks::All, Tasks::Process);
        let all = self.programs.names;
        let wanted = all.len() - usize::from(!mappings);
        for name in &all[..wanted] {
            let link = self.programs.link(name, tasks)?;
            program::run(&link)?;
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

fn decode(raw: &[wire::RingSighting]) -> Result<(Vec<Sighting>, Vec<Unseen>)> {
    let mut sightings = Vec::with_capacity(raw.len());
    let mut unseen = Vec::new();
    let ours = observer::abandoned();
    for (at, row) in raw.iter().enumerate() {
        // A child of ours that waits for a lock is no holder that counts.
        if ours.contains(&row.pid) {
            continue;
        }
        let via = match row.via {
            wire::VIA_DESCRIPTOR => Via::Descriptor(row.fd),
            wire::VIA_REGISTERED => Via::Registered(row.fd.unsigned_abs()),
            wire::VIA_MAPPING => Via::Mapping,
            wire::VIA_UNSEEN => {
                unseen.push(Unseen {
                    pid: row.pid,
                    why: "its mappings could not be looked at: its mmap_lock was taken".into(),
                });
                continue;
            }
            wire::VIA_UNSEEN_FDS => {
                unseen.push(Unseen {
                    pid: row.pid,
                    why: "its descriptors could not be looked at: they changed all the while"
                        .into(),
                });
                continue;
            }
            other => {
                return Err(Error::malformed(
                    "the search for rings",
                    format!("sighting {at} has kind {other}"),
                ))
            }
        };
        sightings.push(decode_one(row, via));
    }
    Ok((sightings, unseen))
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
        details: has(wire::RING_DESCRIBED).then(|| details(row)),
    }
}

fn details(row: &wire::RingSighting) -> Details {
    let page = rustix::param::page_size() as u64;
    let bytes = |pages: u64| pages.saturating_mul(page);
    let has = |flag| row.flags & flag != 0;
    Details {
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
    }
}
