//! The descriptors by which tasks hold epoll sets, as programs have seen them.

use crate::backend::bpf::program::Forms;
use crate::backend::bpf::task_file::finder::Wanted;
use crate::backend::bpf::wire;
use crate::error::{Error, Result};
use crate::ring::{Holder, Names, Seen, Sighting, Unseen, UnseenReason, Via};
use crate::sys::bpf;

/// Each program sees all that there is to see.
pub(crate) const SETS: Wanted<wire::EpollSighting> = Wanted {
    what: "epoll sets",
    object: bpf::sets_object,
    forms: Forms {
        direct: &[c"find_sets"],
        compat: &[c"find_sets_compat"],
    },
    walks: &[
        (c"find_sets", wire::FIND_HELD),
        (c"find_sets_compat", wire::FIND_HELD),
    ],
    decode,
};

fn decode(raw: &[wire::EpollSighting]) -> Result<Seen> {
    let mut seen = Seen::default();
    seen.sightings.reserve(raw.len());
    for (at, row) in raw.iter().enumerate() {
        match row.via {
            wire::VIA_DESCRIPTOR => seen.sightings.push(decode_one(row)),
            wire::VIA_UNSEEN_FDS => seen.unseen.push(Unseen {
                pid: row.pid,
                why: UnseenReason::DescriptorsChanging,
            }),
            other => {
                return Err(Error::malformed(
                    "the search for epoll sets",
                    format!("sighting {at} has kind {other}"),
                ))
            }
        }
    }
    Ok(seen)
}

fn decode_one(row: &wire::EpollSighting) -> Sighting {
    Sighting {
        key: (row.set, row.inode),
        holder: Holder::new(
            (row.pid, row.tid),
            Via::Descriptor(row.fd),
            row.uid,
            Names {
                process: wire::comm_bytes(&row.comm).into(),
                thread: (row.tid != row.pid).then(|| wire::comm_bytes(&row.thread_comm).into()),
            },
        ),
        files: row.files,
        ring: None,
    }
}
