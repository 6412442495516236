//! `uringctl list`: one line a ring.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use uring_bpf_iter::{Consistency, Pinned, Queue, RegisteredBuf, Ring, Via};

use crate::args::{Format, Rings};
use crate::exit::Stop;
use crate::json::time_ms;
use crate::process::{Container, Containers};
use crate::rings;
use crate::table::Table;
use crate::text::{self, flags, human, or_unknown, printable};

/// The columns that are left out where all processes are in our pid namespace, and in the
/// root cgroup.
const NSPID: usize = 17;
const CGROUP: usize = 18;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    rings: Rings,
}

pub(crate) fn main(options: &Options) -> ExitCode {
    let args = &options.rings;
    let mut reader = args.reader::<RegisteredBuf>();
    rings::main("list", args, |run, mut rings, out| {
        // The search has sums already, but verified ones.
        if args.locked || args.common.raw {
            for ring in &mut rings {
                let bufs = run.noted(args.read(&mut reader, ring));
                ring.pinned = bufs.map(|bufs| Pinned::of(&bufs, bufs.consistency()));
            }
        }
        match args.common.format {
            Format::Table => print_table(args, &rings, out),
            Format::Json => print_json(&rings, out),
        }
    })
}

fn print_json(rings: &[Ring], out: &mut dyn Write) -> Result<(), Stop> {
    let mut containers = Containers::default();
    for ring in rings {
        let read = json!({"time_ms": time_ms()});
        rings::line(&mut containers, ring, read)?.print(out)?;
    }
    Ok(())
}

fn print_table(args: &Rings, rings: &[Ring], out: &mut dyn Write) -> Result<(), Stop> {
    if rings.is_empty() {
        return Ok(());
    }
    let header = [
        "RING", "PID", "TID", "NAME", "FD", "HOLDERS", "UID", "SQ", "SQ HEAD", "SQ TAIL", "CQ",
        "CQ HEAD", "CQ TAIL", "BUFS", "PINNED", "FILES", "SQPOLL", "NSPID", "CGROUP", "FLAGS",
    ];
    let numbers = [0, 1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17];
    let mut table = Table::new(header, &numbers);
    let mut containers = Containers::default();
    let (mut namespaces, mut cgroups) = (false, false);
    for ring in rings {
        let pid = args.holder(ring).pid;
        let container = containers.of(pid);
        namespaces |= container.ns_pid.is_some_and(|number| number != pid);
        cgroups |= container.cgroup.as_ref().is_some_and(|path| path != "/");
        table.add(row(args, ring, container));
    }
    if !namespaces {
        table.hide(NSPID);
    }
    if !cgroups {
        table.hide(CGROUP);
    }
    Ok(table.print(out)?)
}

fn row(args: &Rings, ring: &Ring, container: &Container) -> [String; 20] {
    let holder = args.holder(ring);
    let queue = |queue: Option<Queue>| {
        [
            or_unknown(queue.map(|q| q.entries)),
            or_unknown(queue.map(|q| q.head)),
            or_unknown(queue.map(|q| q.tail)),
        ]
    };
    let held = match holder.via {
        Via::Registered(index) => format!("reg {index}"),
        Via::Mapping => "mmap".into(),
        _ => or_unknown(holder.fd()),
    };
    let ([sq, sq_head, sq_tail], [cq, cq_head, cq_tail]) = (queue(ring.sq), queue(ring.cq));
    let mut bufs = or_unknown(ring.pinned.map(|pinned| pinned.buffers));
    if args.all_slots {
        bufs = format!("{bufs}/{}", or_unknown(ring.nr_bufs));
    }
    [
        ring.inode.to_string(),
        holder.pid.to_string(),
        holder.tid.to_string(),
        text::name(holder),
        held,
        ring.holders().len().to_string(),
        holder.uid.to_string(),
        sq,
        sq_head,
        sq_tail,
        cq,
        cq_head,
        cq_tail,
        bufs,
        or_unknown(ring.pinned.map(pinned)),
        format!(
            "{}/{}",
            or_unknown(ring.nr_files_filled),
            or_unknown(ring.nr_files)
        ),
        ring.sqpoll
            .map_or_else(|| "-".into(), |sqpoll| or_unknown(sqpoll.tid)),
        or_unknown(container.ns_pid),
        or_unknown(container.cgroup.as_deref().map(printable)),
        flags(ring.flags),
    ]
}

fn pinned(pinned: Pinned) -> String {
    match pinned.consistency {
        Consistency::Raw => format!("{} raw", human(pinned.bytes)),
        _ => human(pinned.bytes),
    }
}
