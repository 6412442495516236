//! Every registered file of every io_uring of the machine.

mod common;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use common::{or_unknown, ring_json, Args, Format, Program, Stop, Tables};
use serde_json::{json, Value};
use uring_bpf_iter::{
    Backend, Consistency, Descriptors, Error, FileIdentity, RegisteredFile, Ring, UringFileIter,
};

/// Shows the registered files of the io_uring instances of the machine, direct
/// descriptors among them
#[derive(Parser)]
#[command(version, after_help = common::EXIT_CODES)]
struct Options {
    #[command(flatten)]
    args: Args,
    /// Show the path of each file, too, where there is a way to it
    #[arg(long)]
    paths: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let args = &options.args;
    let mut tables = Tables::default();
    Program::main("dump_files", args, |program, finder, out| {
        let survey = args.find(finder)?;
        program.note_survey(args, &survey);
        for ring in survey.rings {
            match look(&options, &mut tables, &ring) {
                Ok(seen) if args.format == Format::Json => print_json(args, &seen, out)?,
                Ok(seen) => print_table(&options, &seen, out)?,
                Err(error) => {
                    program.note_error(&error);
                }
            }
        }
        Ok(())
    })
}

/// The table of one ring, and who else has its files.
struct Seen<'a> {
    ring: &'a Ring,
    files: Vec<RegisteredFile>,
    consistency: Consistency,
    backend: Backend,
    descriptors: Descriptors,
    /// One for each file, if they were asked for.
    paths: Vec<Option<PathBuf>>,
}

fn look<'a>(
    options: &Options,
    tables: &mut Tables<RegisteredFile>,
    ring: &'a Ring,
) -> Result<Seen<'a>, Error> {
    let args = &options.args;
    let iter = tables.of(args, ring)?;
    let descriptors = iter.descriptors()?;
    let snapshot = args.read(iter)?;
    let (consistency, backend) = (snapshot.consistency(), snapshot.backend());
    let files = snapshot.to_vec();
    let paths = match options.paths {
        true => (files.iter())
            .map(|slot| path(iter, &descriptors, slot))
            .collect::<Result<_, _>>()?,
        false => vec![None; files.len()],
    };
    Ok(Seen {
        ring,
        files,
        consistency,
        backend,
        descriptors,
        paths,
    })
}

/// By a descriptor of the owner, else by the kernel's own word.
fn path(
    iter: &mut UringFileIter,
    descriptors: &Descriptors,
    slot: &RegisteredFile,
) -> Result<Option<PathBuf>, Error> {
    let Some(file) = slot.file() else {
        return Ok(None);
    };
    match descriptors.path(file) {
        Some(Ok(path)) => Ok(Some(path)),
        _ => match iter.path(slot.index()) {
            // A path that is too long hides no other.
            Err(Error::Unsupported { .. } | Error::Os { .. }) => Ok(None),
            told => told,
        },
    }
}

/// The slots that are to be shown, with their paths.
fn shown<'a>(
    args: &Args,
    seen: &'a Seen<'_>,
) -> impl Iterator<Item = (&'a RegisteredFile, Option<String>)> {
    let all = args.all_slots;
    (seen.files.iter().zip(&seen.paths))
        .filter(move |(slot, _)| all || !slot.is_empty_slot())
        .map(|(slot, path)| (slot, path.as_ref().map(|path| path.display().to_string())))
}

fn print_json(args: &Args, seen: &Seen<'_>, out: &mut dyn Write) -> Result<(), Stop> {
    let (pid, fd) = common::named_by(seen.ring, args);
    let mut head = ring_json(seen.ring);
    head["backend"] = seen.backend.to_string().into();
    head["consistency"] = seen.consistency.to_string().into();
    head["nr_files"] = seen.files.len().into();
    writeln!(out, "{head}")?;
    for (slot, path) in shown(args, seen) {
        let mut line = json!({
            "type": "file",
            "pid": pid,
            "fd": fd,
            "ring": seen.ring.inode,
            "index": slot.index(),
            "empty": slot.is_empty_slot(),
            "tag": slot.tag(),
            "path": path,
        });
        common::add_file(&mut line, slot.file());
        line["owner_pid"] = seen.descriptors.pid().into();
        line["owner_fds"] = (slot.file()).map_or(Value::Null, |f| seen.descriptors.of(f).into());
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn print_table(options: &Options, seen: &Seen<'_>, out: &mut dyn Write) -> Result<(), Stop> {
    let args = &options.args;
    common::print_ring(seen.ring, args, out)?;
    let filled = seen.files.iter().filter_map(RegisteredFile::file);
    let direct = |file: &&FileIdentity| seen.descriptors.of(file).is_empty();
    writeln!(
        out,
        "  {} in {}, {} without a descriptor in process {} ({})",
        common::count(filled.clone().count(), "file"),
        common::count(seen.files.len(), "slot"),
        filled.filter(direct).count(),
        seen.descriptors.pid(),
        common::how_read(seen.consistency, "uring_lock"),
    )?;
    if shown(args, seen).next().is_some() {
        let header = [
            "INDEX",
            "KIND",
            "INODE",
            "DEVICE",
            "FLAGS",
            "POSITION",
            "OWNER FDS",
            "TAG",
            "PATH",
        ];
        let mut table = common::table(header, &[0, 2, 3, 4, 5, 7]);
        for (slot, path) in shown(args, seen) {
            table.add_row(row(seen, slot, path));
        }
        if !options.paths {
            table
                .column_mut(8)
                .map(|column| column.set_constraint(comfy_table::ColumnConstraint::Hidden));
        }
        common::print_indented(&table, out)?;
    }
    writeln!(out)?;
    Ok(())
}

fn row(seen: &Seen<'_>, slot: &RegisteredFile, path: Option<String>) -> Vec<String> {
    let Some(file) = slot.file() else {
        return vec![slot.index().to_string(), "empty".into()];
    };
    let fds: Vec<String> = (seen.descriptors.of(file).iter())
        .map(i32::to_string)
        .collect();
    let (major, minor) = file.device();
    vec![
        slot.index().to_string(),
        file.kind().to_string(),
        file.inode().to_string(),
        format!("{major}:{minor}"),
        format!("{:#o}", file.flags()),
        file.position().to_string(),
        match fds.is_empty() {
            true => "none".into(),
            false => fds.join(","),
        },
        format!("{:#x}", slot.tag()),
        or_unknown(path.map(|path| common::printable(&path))),
    ]
}
