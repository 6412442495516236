//! What the library's own `Serialize` and `Display` will give. This module goes
//! as soon as they do: `soon::ring(x)`, `buf`, `file` and `item` become `x`, and
//! `soon::names(x).join("|")` becomes `x.to_string()`.
#![allow(dead_code)] // the example uses a part

use serde_json::{json, Map, Value};
use uring_bpf_iter::{
    Charged, Direction, EpollItem, FileIdentity, FileKind, RegisteredBuf, RegisteredFile, Ring, Via,
};

/// The names of the bits that are set, and a number for those that have none.
pub(crate) fn names<F: bitflags::Flags<Bits = u32>>(flags: &F) -> Vec<String> {
    let mut names = flags.iter_names();
    let mut all: Vec<String> = names.by_ref().map(|(name, _)| name.into()).collect();
    let rest = names.remaining();
    if !rest.is_empty() {
        all.push(format!("{:#x}", rest.bits()));
    }
    all
}

pub(crate) fn ring(ring: &Ring) -> Value {
    let holders: Vec<Value> = ring
        .holders()
        .iter()
        .map(|holder| {
            let (via, registered) = match holder.via {
                Via::Registered(index) => ("registered", Some(index)),
                Via::Mapping => ("mapping", None),
                _ => ("descriptor", None),
            };
            json!({
                "pid": holder.pid, "tid": holder.tid, "fd": holder.fd(), "via": via,
                "registered_index": registered, "uid": holder.uid, "name": holder.name,
            })
        })
        .collect();
    let (charged_uid, user_locked) = match ring.charged {
        Some(Charged::User { uid, locked_bytes }) => (Some(uid), Some(locked_bytes)),
        _ => (None, None),
    };
    json!({
        "ring": ring.inode,
        "holders": holders,
        "creator_uid": ring.creator_uid,
        "flags": ring.flags.map(|flags| flags.bits()),
        "flag_names": ring.flags.map(|flags| names(&flags)),
        "sq_entries": ring.sq.map(|q| q.entries),
        "sq_head": ring.sq.map(|q| q.head),
        "sq_tail": ring.sq.map(|q| q.tail),
        "cq_entries": ring.cq.map(|q| q.entries),
        "cq_head": ring.cq.map(|q| q.head),
        "cq_tail": ring.cq.map(|q| q.tail),
        "sqpoll": ring.sqpoll.map(|sqpoll| json!({"tid": sqpoll.tid, "cpu": sqpoll.cpu})),
        "nr_slots": ring.nr_bufs,
        "nr_bufs": ring.pinned.map(|pinned| pinned.buffers),
        "nr_files": ring.nr_files,
        "pinned_bytes": ring.pinned.map(|pinned| pinned.bytes),
        "acct_bytes": ring.pinned.and_then(|pinned| pinned.accounted),
        "charged_uid": charged_uid,
        "user_locked_bytes": user_locked,
        "consistency": ring.pinned.map(|pinned| pinned.consistency.to_string()),
    })
}

pub(crate) fn buf(buf: &RegisteredBuf) -> Value {
    let mut line = json!(buf);
    line["direction"] = json!(buf.direction().map(|direction| {
        let names: Vec<&str> = [(Direction::DEST, "dest"), (Direction::SOURCE, "source")]
            .into_iter()
            .filter(|(one, _)| direction.contains(*one))
            .map(|(_, name)| name)
            .collect();
        names.join("|")
    }));
    line
}

pub(crate) fn file(slot: &RegisteredFile) -> Value {
    let mut line = json!({
        "index": slot.index(),
        "empty": slot.is_empty_slot(),
        "tag": slot.tag(),
    });
    add_file(&mut line, slot.file());
    line
}

pub(crate) fn item(item: &EpollItem) -> Value {
    let mut line = json!({
        "fd": item.fd(),
        "events": item.events().bits(),
        "event_names": names(&item.events()),
        "data": item.data(),
    });
    add_file(&mut line, Some(item.file()));
    line
}

fn add_file(line: &mut Value, file: Option<&FileIdentity>) {
    let known = file.filter(|file| file.kind() != FileKind::Unknown);
    let keys = json!({
        "kind": file.map(|file| file.kind().to_string()),
        "inode": file.map(FileIdentity::inode),
        "device": file.map(|file| {
            let (major, minor) = file.device();
            format!("{major}:{minor}")
        }),
        "flags": known.map(FileIdentity::flags),
        "mode": known.map(FileIdentity::mode),
        "position": file.map(FileIdentity::position),
    });
    let keys: Map<String, Value> = serde_json::from_value(keys).unwrap_or_default();
    if let Value::Object(line) = line {
        line.extend(keys);
    }
}

/// Becomes `text.parse()`.
pub(crate) fn backend(text: &str) -> Result<uring_bpf_iter::Backend, String> {
    use uring_bpf_iter::Backend;
    let all = [Backend::Native, Backend::TaskFile, Backend::Fdinfo];
    let found = all.into_iter().find(|backend| backend.to_string() == text);
    found.ok_or_else(|| format!("there is no backend {text:?}"))
}
