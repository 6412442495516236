//! How things are shown, to people and to programs.

use std::fmt::Display;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use bitflags::Flags;
use comfy_table::{presets, CellAlignment, ContentArrangement, Table};
use serde_json::{json, Value};
use uring_bpf_iter::{Charged, Consistency, FileIdentity, FileKind, Ring, SetupFlags, Via};

use super::{Args, Stop};

/// The pid and descriptor by which a ring is named: those asked for, else
/// those of the first holder.
pub(crate) fn named_by(ring: &Ring, args: &Args) -> (u32, Option<i32>) {
    let holder = args
        .pid
        .and_then(|pid| ring.holder(pid, args.fd))
        .unwrap_or(ring.owner());
    (holder.pid, holder.fd())
}

/// A name that anybody may have chosen, without what a terminal would obey.
pub(crate) fn printable(name: &str) -> String {
    name.chars()
        .flat_map(|c| match c.is_control() {
            true => c.escape_default().collect::<Vec<_>>(),
            false => vec![c],
        })
        .collect()
}

/// The line that begins what is said of a ring.
pub(crate) fn print_ring(ring: &Ring, args: &Args, out: &mut dyn Write) -> Result<(), Stop> {
    let (pid, fd) = named_by(ring, args);
    let holder = ring.holder(pid, fd).unwrap_or(ring.owner());
    let held = match holder.via {
        Via::Registered(index) => format!("registered descriptor {index}"),
        Via::Mapping => "a mapping".into(),
        _ => format!("fd {}", or_unknown(fd)),
    };
    writeln!(
        out,
        "ring {}: {}[{pid}] {held}, uid {}{}, SQ {}, CQ {}, {}{}",
        ring.inode,
        printable(&holder.name),
        holder.uid,
        others(ring),
        or_unknown(ring.sq.map(|q| q.entries)),
        or_unknown(ring.cq.map(|q| q.entries)),
        flag_names(ring.flags),
        match ring.sqpoll {
            Some(sqpoll) => format!(", SQPOLL thread {}", or_unknown(sqpoll.tid)),
            None => String::new(),
        },
    )?;
    Ok(())
}

fn others(ring: &Ring) -> String {
    match ring.holders().len() {
        1 => String::new(),
        n => format!(", {n} holders"),
    }
}

/// How far what was read belongs together.
pub(crate) fn how_read(consistency: Consistency, lock: &str) -> String {
    match consistency {
        Consistency::Raw => "RAW: a look without lock or proof, records may be torn".into(),
        Consistency::Locked => format!("read under {lock}"),
        _ => "read without the lock, verified".into(),
    }
}

/// A table below what it is about.
pub(crate) fn print_indented(table: &Table, out: &mut dyn Write) -> Result<(), Stop> {
    for line in table.trim_fmt().lines() {
        writeln!(out, "  {}", line.trim_end())?;
    }
    Ok(())
}

/// What a file is, as further fields of a JSON object; null for no file.
pub(crate) fn add_file(line: &mut Value, file: Option<&FileIdentity>) {
    line["kind"] = json!(file.map(|file| file.kind().to_string()));
    line["inode"] = json!(file.map(FileIdentity::inode));
    line["device"] = json!(file.map(|file| {
        let (major, minor) = file.device();
        format!("{major}:{minor}")
    }));
    let known = file.filter(|file| file.kind() != FileKind::Unknown);
    line["flags"] = json!(known.map(FileIdentity::flags));
    line["mode"] = json!(known.map(FileIdentity::mode));
    line["position"] = json!(file.map(FileIdentity::position));
}

/// `1 ring`, `2 rings`.
pub(crate) fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

/// Bytes in units that a person reads.
pub(crate) fn human(bytes: u64) -> String {
    humansize::format_size(bytes, humansize::BINARY)
}

pub(crate) fn flag_names(flags: Option<SetupFlags>) -> String {
    match flags {
        None => "flags unknown".into(),
        Some(flags) if flags.is_empty() => "no flags".into(),
        Some(flags) => bit_names(&flags).join("|"),
    }
}

/// The names of the bits that are set, and a number for those that have none.
pub(crate) fn bit_names<F: Flags<Bits = u32>>(flags: &F) -> Vec<String> {
    let mut names = flags.iter_names();
    let mut all: Vec<String> = names.by_ref().map(|(name, _)| name.into()).collect();
    let rest = names.remaining();
    if !rest.is_empty() {
        all.push(format!("{:#x}", rest.bits()));
    }
    all
}

/// A table without lines, for a terminal and for awk.
pub(crate) fn table<const N: usize>(header: [&str; N], right: &[usize]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    for &column in right {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// `?` for what is not known.
pub(crate) fn or_unknown(value: Option<impl Display>) -> String {
    value.map_or_else(|| "?".into(), |value| value.to_string())
}

/// Milliseconds since 1970.
pub(crate) fn time_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// The JSON object of a ring; README.md states the schema.
pub(crate) fn ring_json(ring: &Ring) -> Value {
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
        "type": "ring",
        "ring": ring.inode,
        "time_ms": time_ms(),
        "holders": holders,
        "creator_uid": ring.creator_uid,
        "flags": ring.flags.map(|flags| flags.bits()),
        "flag_names": ring.flags.map(|flags| bit_names(&flags)),
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
