//! `uringctl epoll`: the items of the epoll sets of a process.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use uring_bpf_iter::{EpollItem, EpollIter, Error, FileKind, Permission, Snapshot};

use crate::args::{Common, Format};
use crate::exit::Stop;
use crate::json::{time_ms, Line};
use crate::run::Run;
use crate::table::Table;
use crate::text::{count, device, how_read, or_unknown, printable};

#[derive(Args)]
pub(crate) struct Options {
    /// The process
    #[arg(long)]
    pid: u32,
    /// Only the epoll set behind this descriptor of the process
    #[arg(long)]
    fd: Option<i32>,
    #[command(flatten)]
    common: Common,
}

pub(crate) fn main(options: &Options) -> ExitCode {
    Run::new("epoll").repeat(options.common.watch, |run, out| {
        let sets = match options.fd {
            Some(fd) => vec![fd],
            None => sets_of(options.pid)?,
        };
        if sets.is_empty() {
            run.note(format_args!("process {} has no epoll set", options.pid));
        }
        for fd in sets {
            match show(options, fd, out) {
                Ok(()) => {}
                Err(Stop::Failed(error)) if options.fd.is_none() && is_gone(&error) => {}
                Err(Stop::Failed(error)) => run.note_error(&error),
                Err(stop) => return Err(stop),
            }
        }
        Ok(())
    })
}

/// True for a set that was closed after it was listed.
fn is_gone(error: &Error) -> bool {
    matches!(
        error,
        Error::NoSuchDescriptor { .. } | Error::NotAnEpoll { .. } | Error::EpollGone { .. }
    )
}

fn show(options: &Options, fd: i32, out: &mut dyn Write) -> Result<(), Stop> {
    let backend = options.common.backend();
    let mut iter = EpollIter::options()
        .backend(backend)
        .attach_pid(options.pid, fd)?;
    let items = match options.common.raw {
        true => iter.snapshot_raw()?,
        false => iter.snapshot()?,
    };
    match options.common.format {
        Format::Json => print_json(options.pid, fd, &items, out),
        Format::Table => print_table(options.pid, fd, &items, out),
    }
}

/// The descriptors of a process that are epoll sets, in ascending order.
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
        // A descriptor that has just been closed has no link.
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
    let key = json!({"pid": pid, "epoll_fd": set});
    let read = json!({
        "time_ms": time_ms(),
        "name": name_of(pid),
        "nr_items": items.len(),
        "backend": items.backend().to_string(),
        "consistency": items.consistency().to_string(),
    });
    Line::new("epoll").with(&key)?.with(read)?.print(out)?;
    let mut line = Line::new("item").with(&key)?;
    for item in items.iter() {
        line.print_with(item, out)?;
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
        printable(&name_of(pid)),
        count(items.len(), "item"),
        how_read(items.consistency(), "ep->mtx"),
    )?;
    if !items.is_empty() {
        let header = [
            "FD", "EVENTS", "DATA", "KIND", "INODE", "DEVICE", "FLAGS", "POSITION",
        ];
        let mut table = Table::new(header, &[0, 2, 4, 5, 6, 7]);
        for item in items.iter() {
            table.add(row(item));
        }
        table.print_indented(out)?;
    }
    writeln!(out)?;
    Ok(())
}

fn row(item: &EpollItem) -> [String; 8] {
    let file = item.file();
    let known = file.kind() != FileKind::Unknown;
    [
        item.fd().to_string(),
        item.events().to_string(),
        format!("{:#x}", item.data()),
        or_unknown(known.then(|| file.kind())),
        file.inode().to_string(),
        device(file),
        or_unknown(known.then(|| format!("{:#o}", file.flags()))),
        file.position().to_string(),
    ]
}
