//! Words and units for people.

use std::fmt::Display;
use std::io::{self, Write};

use uring_bpf_iter::{Consistency, FileIdentity, Ring, SetupFlags, Via};

use crate::args::Rings;

/// The line above everything that is shown of a ring.
pub(crate) fn print_ring(ring: &Ring, args: &Rings, out: &mut dyn Write) -> io::Result<()> {
    let holder = args.holder(ring);
    let held = match holder.via {
        Via::Registered(index) => format!("registered descriptor {index}"),
        Via::Mapping => "a mapping".into(),
        _ => format!("fd {}", or_unknown(holder.fd())),
    };
    let others = match ring.holders().len() {
        1 => String::new(),
        n => format!(", {n} holders"),
    };
    let sqpoll = match ring.sqpoll {
        Some(sqpoll) => format!(", SQPOLL thread {}", or_unknown(sqpoll.tid)),
        None => String::new(),
    };
    writeln!(
        out,
        "ring {}: {}[{}] {held}, uid {}{others}, SQ {}, CQ {}, {}{sqpoll}",
        ring.inode,
        printable(&holder.name),
        holder.pid,
        holder.uid,
        or_unknown(ring.sq.map(|q| q.entries)),
        or_unknown(ring.cq.map(|q| q.entries)),
        flags(ring.flags),
    )
}

pub(crate) fn flags(flags: Option<SetupFlags>) -> String {
    match flags {
        None => "flags unknown".into(),
        Some(flags) if flags.is_empty() => "no flags".into(),
        Some(flags) => flags.to_string(),
    }
}

/// How far the records that were read belong together.
pub(crate) fn how_read(consistency: Consistency, lock: &str) -> String {
    match consistency {
        Consistency::Raw => "RAW: read once without a check, records may be torn".into(),
        Consistency::Locked => format!("read under {lock}"),
        _ => "read without the lock, verified".into(),
    }
}

/// The device that a file is on, as `MAJOR:MINOR`.
pub(crate) fn device(file: &FileIdentity) -> String {
    let (major, minor) = file.device();
    format!("{major}:{minor}")
}

/// A name that anybody may have chosen, without anything that a terminal obeys.
pub(crate) fn printable(name: &str) -> String {
    name.chars()
        .flat_map(|c| match c.is_control() {
            true => c.escape_default().collect::<Vec<_>>(),
            false => vec![c],
        })
        .collect()
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

/// `?` for an unknown value.
pub(crate) fn or_unknown(value: Option<impl Display>) -> String {
    value.map_or_else(|| "?".into(), |value| value.to_string())
}
