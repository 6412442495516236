//! Words and units for people.

use std::fmt::Display;
use std::io::{self, Write};

use uring_bpf_iter::{
    Consistency, FileFlags, FileIdentity, FileKind, Holder, Ring, SetupFlags, Via,
};

use crate::args::Rings;

/// The line above everything that is shown of a ring.
pub(crate) fn print_ring(ring: &Ring, args: &Rings, out: &mut dyn Write) -> io::Result<()> {
    let holder = args.holder(ring);
    let held = match holder.via {
        Via::Registered(index) => format!("registered descriptor {index}"),
        Via::Mapping => "a mapping".into(),
        _ => format!("fd {}", or_unknown(holder.fd())),
    };
    let others = others(ring, holder.pid);
    let sqpoll = match ring.sqpoll {
        Some(sqpoll) => format!(", SQPOLL thread {}", or_unknown(sqpoll.tid)),
        None => String::new(),
    };
    writeln!(
        out,
        "ring {}: {}[{}]{} {held}, uid {}{others}, SQ {}, CQ {}, {}{sqpoll}",
        ring.inode,
        name(holder),
        holder.pid,
        match holder.tid == holder.pid {
            true => String::new(),
            false => format!(" thread {}", holder.tid),
        },
        holder.uid,
        or_unknown(ring.sq.map(|q| q.entries)),
        or_unknown(ring.cq.map(|q| q.entries)),
        flags(ring.flags),
    )
}

/// The other processes that hold a ring: the first of them, and how many there are.
fn others(ring: &Ring, shown: u32) -> String {
    const FEW: usize = 4;
    let mut pids: Vec<u32> = ring.holders().iter().map(|holder| holder.pid).collect();
    pids.retain(|pid| *pid != shown);
    pids.sort_unstable();
    pids.dedup();
    let first: Vec<String> = pids.iter().take(FEW).map(u32::to_string).collect();
    match pids.len() {
        0 => String::new(),
        n if n <= FEW => format!(", also held by {}", first.join(", ")),
        n => format!(", also held by {} and {} more", first.join(", "), n - FEW),
    }
}

/// The line for those rings that have nothing registered, below the others.
pub(crate) fn print_bare(number: usize, what: &str, out: &mut dyn Write) -> io::Result<()> {
    match number {
        0 => Ok(()),
        1 => writeln!(out, "1 ring has no registered {what}\n"),
        n => writeln!(out, "{n} rings have no registered {what}\n"),
    }
}

/// The name of a holder: of its process, and of its thread where that says more.
pub(crate) fn name(holder: &Holder) -> String {
    match &holder.thread_name {
        Some(thread) if *thread != holder.name => {
            format!("{}/{}", printable(&holder.name), printable(thread))
        }
        _ => printable(&holder.name),
    }
}

/// The task whose descriptors are meant.
pub(crate) fn task(holder: &Holder) -> String {
    match holder.tid == holder.pid {
        true => format!("process {}", holder.pid),
        false => format!("thread {} of process {}", holder.tid, holder.pid),
    }
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

/// The kind of a file, with what tells it from others of that kind, and whether it is
/// deleted.
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
