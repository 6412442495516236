//! `uringctl bufs`: the registered buffers of each ring.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use uring_bpf_iter::{Consistency, Pinned, RegisteredBuf, RegisteredBufs, Ring, Snapshot};

use crate::args::{Format, Rings};
use crate::exit::Stop;
use crate::json::{time_ms, Line};
use crate::pages::Pages;
use crate::process::Containers;
use crate::rings;
use crate::table::Table;
use crate::text::{self, count, how_read, human, or_unknown};
use crate::totals::Totals;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    rings: Rings,
    /// List the pages of each buffer as well (not with fdinfo)
    #[arg(long)]
    pages: bool,
}

pub(crate) fn main(options: &Options) -> ExitCode {
    let args = &options.rings;
    let mut pages = options.pages.then(Pages::default);
    let mut reader = args.reader();
    rings::main("bufs", args, |run, rings, out| {
        let several = rings.len() > 1 && !args.all_slots;
        let mut containers = Containers::default();
        let mut totals = Totals::default();
        let mut bare = 0;
        for mut ring in rings {
            let Some(bufs) = run.noted(args.read(&mut reader, &ring)) else {
                continue;
            };
            ring.pinned = Some(Pinned::of(&bufs, bufs.consistency()));
            ring.nr_bufs = u32::try_from(bufs.len()).ok();
            let attached = pages.as_mut().map(|pages| pages.of(args, &ring));
            let mut attached = attached.and_then(|pages| run.noted(pages));
            let mut below = |buf: &RegisteredBuf, out: &mut dyn Write| match &mut attached {
                Some(pages) => pages.print(run, buf, out),
                None => Ok(()),
            };
            match args.common.format {
                Format::Json => {
                    let read = json!({"time_ms": time_ms(), "backend": bufs.backend().to_string()});
                    rings::line(&mut containers, &ring, read)?.print(out)?;
                    print_json(args, &ring, &bufs, &mut below, out)?;
                }
                Format::Table => {
                    match several && bufs.is_empty() {
                        true => bare += 1,
                        false => print_table(args, &ring, &bufs, &mut below, out)?,
                    }
                    totals.add(&ring);
                }
            }
        }
        text::print_bare(bare, "buffers", out)?;
        Ok(totals.print(out)?)
    })
}

/// Prints what comes after a buffer.
type Below<'a> = dyn FnMut(&RegisteredBuf, &mut dyn Write) -> Result<(), Stop> + 'a;

/// The slots that are to be shown.
fn shown<'a>(args: &Rings, bufs: &'a [RegisteredBuf]) -> impl Iterator<Item = &'a RegisteredBuf> {
    let all = args.all_slots;
    bufs.iter().filter(move |buf| all || !buf.is_empty_slot())
}

fn print_json(
    args: &Rings,
    ring: &Ring,
    bufs: &Snapshot<'_>,
    below: &mut Below<'_>,
    out: &mut dyn Write,
) -> Result<(), Stop> {
    let mut line = Line::new("buf").with(args.key(ring))?;
    for buf in shown(args, bufs) {
        line.print_with(buf, out)?;
        below(buf, out)?;
    }
    Ok(())
}

fn print_table(
    args: &Rings,
    ring: &Ring,
    bufs: &Snapshot<'_>,
    below: &mut Below<'_>,
    out: &mut dyn Write,
) -> Result<(), Stop> {
    text::print_ring(ring, args, out)?;
    let how = how_read(bufs.consistency(), "uring_lock");
    writeln!(
        out,
        "  {} in {}: {} pinned{}{}",
        count(bufs.filled().count(), "buffer"),
        count(bufs.len(), "slot"),
        human(bufs.pinned_bytes()),
        match ring.pinned.and_then(|pinned| pinned.accounted) {
            Some(bytes) => format!(", {} accounted", human(bytes)),
            None => String::new(),
        },
        match bufs.consistency() {
            Consistency::Raw => format!(". {how}"),
            _ => format!(" ({how})"),
        },
    )?;
    if shown(args, bufs).next().is_some() {
        let header = [
            "INDEX",
            "ADDRESS",
            "LENGTH",
            "PAGES",
            "SEGMENTS",
            "SEG SIZE",
            "ACCOUNTED",
            "REFS",
            "TAG",
            "MEMORY",
        ];
        let mut table = Table::new(header, &[0, 1, 2, 3, 4, 5, 6, 7, 8]);
        for buf in shown(args, bufs) {
            table.add(row(buf));
        }
        table.print_indented(out)?;
        for buf in bufs.filled() {
            below(buf, out)?;
        }
    }
    writeln!(out)?;
    Ok(())
}

fn row(buf: &RegisteredBuf) -> Vec<String> {
    if buf.is_empty_slot() {
        return vec![buf.index().to_string(), "empty".into()];
    }
    let accounted = buf
        .acct_pages()
        .map(|pages| human(u64::from(pages) * buf.page_size()));
    vec![
        buf.index().to_string(),
        format!("{:#x}", buf.addr()),
        human(buf.len()),
        buf.nr_pages().to_string(),
        or_unknown(buf.nr_bvecs()),
        or_unknown(buf.bvec_shift().map(|shift| human(1u64 << (shift & 63)))),
        or_unknown(accounted),
        or_unknown(buf.refs()),
        or_unknown(buf.tag().map(|tag| format!("{tag:#x}"))),
        match buf.is_kernel() {
            Some(true) => "kernel".into(),
            Some(false) => "user".into(),
            None => "?".into(),
        },
    ]
}
