//! One line for each io_uring of the machine: who holds it, how it was set up,
//! how full its queues are, what it pins.

mod common;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use common::{flag_names, human, or_unknown, ring_json, Args, Format, Program, Stop, Tables};
use uring_bpf_iter::{Consistency, Pinned, Queue, RegisteredBuf, Ring, Via};

fn main() -> ExitCode {
    let command = Args::command()
        .name("lsring")
        .about("Lists the io_uring instances of the machine, one a line");
    let args = Args::from_arg_matches(&command.get_matches()).unwrap_or_else(|e| e.exit());
    let mut buffers = Tables::<RegisteredBuf>::default();
    Program::main("lsring", &args, |program, finder, out| {
        let mut survey = args.find(finder)?;
        program.note_survey(&args, &survey);
        if args.locked || args.raw {
            for ring in &mut survey.rings {
                match buffers.read(&args, ring) {
                    Ok(bufs) => ring.pinned = Some(Pinned::of(&bufs, bufs.consistency())),
                    Err(error) => {
                        ring.pinned = None;
                        program.note_error(&error);
                    }
                }
            }
        }
        match args.format {
            Format::Table => print_table(&args, &survey.rings, out),
            Format::Json => print_json(&survey.rings, out),
        }
    })
}

fn print_json(rings: &[Ring], out: &mut dyn Write) -> Result<(), Stop> {
    for ring in rings {
        writeln!(out, "{}", ring_json(ring))?;
    }
    Ok(())
}

fn print_table(args: &Args, rings: &[Ring], out: &mut dyn Write) -> Result<(), Stop> {
    if rings.is_empty() {
        return Ok(());
    }
    let header = [
        "RING", "PID", "NAME", "FD", "HOLDERS", "UID", "SQ", "SQ HEAD", "SQ TAIL", "CQ", "CQ HEAD",
        "CQ TAIL", "BUFS", "PINNED", "FILES", "FLAGS",
    ];
    let mut table = common::table(header, &[0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
    for ring in rings {
        let (pid, fd) = common::named_by(ring, args);
        let holder = ring.holder(pid, fd).unwrap_or(ring.owner());
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
            _ => or_unknown(fd),
        };
        let ([sq, sq_head, sq_tail], [cq, cq_head, cq_tail]) = (queue(ring.sq), queue(ring.cq));
        let mut bufs = or_unknown(ring.pinned.map(|pinned| pinned.buffers));
        if args.all_slots {
            bufs = format!("{bufs}/{}", or_unknown(ring.nr_bufs));
        }
        table.add_row([
            ring.inode.to_string(),
            pid.to_string(),
            common::printable(&holder.name),
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
            or_unknown(ring.nr_files),
            flag_names(ring.flags),
        ]);
    }
    writeln!(out, "{}", table.trim_fmt())?;
    Ok(())
}

fn pinned(pinned: Pinned) -> String {
    match pinned.consistency {
        Consistency::Raw => format!("{} raw", human(pinned.bytes)),
        _ => human(pinned.bytes),
    }
}
