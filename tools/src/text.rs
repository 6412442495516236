//! Words and units for people.

use std::fmt::Display;
use std::io::{self, Write};

use uring_bpf_iter::{Consistency, FileFlags, FileIdentity, FileKind, Ring, SetupFlags, Via};

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

/// What a file is, with what tells it from others of its kind, and whether it is deleted.
pub(crate) fn kind(file: &FileIdentity) -> String {
    let named = match file.kind() {
        FileKind::Regular | FileKind::AnonInode | FileKind::Other => file.anon_kind(),
        _ => None,
    };
    let mut text = named.map_or_else(|| file.kind().to_string(), printable);
    if let Some((major, minor)) = file.rdev() {
        text += &format!(" {major}:{minor}");
    }
    if let Some(id) = file.eventfd_id() {
        text += &format!(" {id}");
    }
    if file.is_deleted() == Some(true) {
        text += " (deleted)";
    }
    text
}

/// The flags of an open file, without the one that open(2) always sets here.
pub(crate) fn open_flags(file: &FileIdentity) -> String {
    let flags = match cfg!(target_pointer_width = "64") {
        true => file.open_flags() - FileFlags::O_LARGEFILE,
        false => file.open_flags(),
    };
    flags.to_string()
}

/// The size of a file that has one.
pub(crate) fn size(file: &FileIdentity) -> String {
    match file.kind() {
        FileKind::Regular | FileKind::Directory | FileKind::Other => {
            or_unknown(file.size().map(human))
        }
        _ => "-".into(),
    }
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
