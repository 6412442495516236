//! The ways in which tasks hold rings, as programs have seen them.

use crate::backend::bpf::program::Forms;
use crate::backend::bpf::task_file::finder::Wanted;
use crate::backend::bpf::wire;
use crate::error::{Error, Result};
use crate::record::Consistency;
use crate::ring::{
    Charged, Holder, Names, Pinned, Queue, Ring, Seen, SetupFlags, Sighting, SqPoll, Unseen,
    UnseenReason, Via,
};
use crate::sys::bpf;

/// Programs of both forms: there are the walks of the one that is loaded.
pub(crate) const RINGS: Wanted<wire::RingSighting> = Wanted {
    what: "rings",
    object: bpf::rings_object,
    forms: Forms {
        direct: &[c"find_rings"],
        compat: &[
            c"find_rings_file_compat",
            c"find_rings_registered_compat",
            c"find_rings_mapped_compat",
        ],
    },
    walks: &[
        (c"find_rings", wire::FIND_HELD),
        (c"find_rings", wire::FIND_MAPPED),
        (c"find_rings_file_compat", wire::FIND_HELD),
        (c"find_rings_registered_compat", wire::FIND_HELD),
        (c"find_rings_mapped_compat", wire::FIND_MAPPED),
    ],
    decode,
};

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
        holder: Holder::new(
            (row.pid, row.tid),
            via,
            row.uid,
            Names {
                process: wire::comm_bytes(&row.comm).into(),
                thread: (row.tid != row.pid).then(|| wire::comm_bytes(&row.thread_comm).into()),
            },
        ),
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
