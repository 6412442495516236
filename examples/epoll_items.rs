//! Every item of an epoll set, or of all epoll sets of a process.

mod common;

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use common::{BackendArg, Format, Program, Stop};
use serde_json::json;
use uring_bpf_iter::{EpollItem, EpollIter, Error, FileKind, Permission, Snapshot};

/// Shows the items of the epoll sets of a process: which files it waits for,
/// for which events, and what it wants to be told then
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Exit codes: 0 done, also when there is no epoll set; 1 failed (no such process,
no such descriptor, no epoll set, the set is gone); 2 wrong usage; 3 not
permitted, or the backend that was asked for cannot serve; 4 a set was too busy
for a consistent look (try again, or use --raw)."
)]
struct Args {
    /// The process
    #[arg(long)]
    pid: u32,
    /// Only the epoll set that is this descriptor of it
    #[arg(long)]
    fd: Option<i32>,
    /// How to ask the kernel
    #[arg(long, value_enum, default_value_t = BackendArg::Auto)]
    backend: BackendArg,
    /// How to print: a table for people, or one JSON object a line
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Look once, without lock or proof: for a set whose lock is stuck
    #[arg(long)]
    raw: bool,
    /// Look again every so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    watch: Option<u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    Program::new("epoll_items").repeat(args.watch, |program, out| {
        let sets = match args.fd {
            Some(fd) => vec![fd],
            None => sets_of(args.pid)?,
        };
        if sets.is_empty() {
            program.note(format_args!("process {} has no epoll set", args.pid));
        }
        for fd in sets {
            match show(&args, fd, out) {
                Ok(()) => {}
                Err(Stop::Failed(error)) if args.fd.is_none() && is_gone(&error) => {}
                Err(Stop::Failed(error)) => {
                    program.note_error(&error);
                }
                Err(stop) => return Err(stop),
            }
        }
        Ok(())
    })
}

/// A set that was closed after it was listed is none.
fn is_gone(error: &Error) -> bool {
    matches!(
        error,
        Error::NoSuchDescriptor { .. } | Error::NotAnEpoll { .. } | Error::EpollGone { .. }
    )
}

fn show(args: &Args, fd: i32, out: &mut dyn Write) -> Result<(), Stop> {
    let options = EpollIter::options().backend(Option::from(args.backend));
    let mut iter = options.attach_pid(args.pid, fd)?;
    let items = match args.raw {
        true => iter.snapshot_raw()?,
        false => iter.snapshot()?,
    };
    match args.format {
        Format::Json => print_json(args.pid, fd, &items, out),
        Format::Table => print_table(args.pid, fd, &items, out),
    }
}

/// The descriptors of a process that are epoll sets, in their order.
fn sets_of(pid: u32) -> Result<Vec<i32>, Error> {
    let path = format!("/proc/{pid}/fd");
    let failed = |source: std::io::Error| match source.kind() {
        ErrorKind::NotFound => Error::NoSuchProcess { pid },
        ErrorKind::PermissionDenied => Error::NotPermitted {
            operation: format!("list {path}"),
            needs: Permission::ReadProc,
            source,
        },
        _ => Error::Os {
            operation: format!("list {path}"),
            source,
        },
    };
    let mut sets = Vec::new();
    for entry in fs::read_dir(&path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // One that has just been closed is no set.
        let link = fs::read_link(entry.path()).unwrap_or_default();
        if link == Path::new("anon_inode:[eventpoll]") {
            let fd = entry.file_name();
            sets.extend(fd.to_str().and_then(|fd| fd.parse::<i32>().ok()));
        }
    }
    sets.sort_unstable();
    Ok(sets)
}

fn name_of(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end_matches('\n').into()
}

fn print_json(
    pid: u32,
    set: i32,
    items: &Snapshot<'_, EpollItem>,
    out: &mut dyn Write,
) -> Result<(), Stop> {
    let head = json!({
        "type": "epoll",
        "pid": pid,
        "epoll_fd": set,
        "time_ms": common::time_ms(),
        "name": name_of(pid),
        "nr_items": items.len(),
        "backend": items.backend().to_string(),
        "consistency": items.consistency().to_string(),
    });
    writeln!(out, "{head}")?;
    for item in items.iter() {
        let mut line = json!({
            "type": "item",
            "pid": pid,
            "epoll_fd": set,
            "fd": item.fd(),
            "events": item.events().bits(),
            "event_names": common::bit_names(&item.events()),
            "data": item.data(),
        });
        common::add_file(&mut line, Some(item.file()));
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn print_table(
    pid: u32,
    set: i32,
    items: &Snapshot<'_, EpollItem>,
    out: &mut dyn Write,
) -> Result<(), Stop> {
    writeln!(
        out,
        "epoll set fd {set} of {}[{pid}]: {} ({})",
        common::printable(&name_of(pid)),
        common::count(items.len(), "item"),
        common::how_read(items.consistency(), "ep->mtx"),
    )?;
    if !items.is_empty() {
        let header = [
            "FD", "EVENTS", "DATA", "KIND", "INODE", "DEVICE", "FLAGS", "POSITION",
        ];
        let mut table = common::table(header, &[0, 2, 4, 5, 6, 7]);
        for item in items.iter() {
            table.add_row(row(item));
        }
        common::print_indented(&table, out)?;
    }
    writeln!(out)?;
    Ok(())
}

fn row(item: &EpollItem) -> [String; 8] {
    let file = item.file();
    let (major, minor) = file.device();
    let known = file.kind() != FileKind::Unknown;
    [
        item.fd().to_string(),
        common::bit_names(&item.events()).join("|"),
        format!("{:#x}", item.data()),
        common::or_unknown(known.then(|| file.kind())),
        file.inode().to_string(),
        format!("{major}:{minor}"),
        common::or_unknown(known.then(|| format!("{:#o}", file.flags()))),
        file.position().to_string(),
    ]
}
