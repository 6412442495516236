//! Every registered buffer of every io_uring of the machine.

mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use common::{human, or_unknown, ring_json, Args, Format, Program, Stop, Tables, LOCK_LIMIT};
use serde_json::{json, Value};
use uring_bpf_iter::{
    BufPages, Charged, Consistency, Direction, Error, Pinned, RegisteredBuf, RegisteredBufs, Ring,
    Segment, Snapshot,
};

fn main() -> ExitCode {
    let command = Args::command()
        .name("dump_bufs")
        .about("Shows the registered buffers of the io_uring instances of the machine");
    let pages = clap::arg!(--pages "List the pages of each buffer, too (not by fdinfo)");
    let matches = command.arg(pages).get_matches();
    let args = Args::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    let mut pages = matches.get_flag("pages").then(Pages::default);
    let mut buffers = Tables::default();
    Program::main("dump_bufs", &args, |program, finder, out| {
        let survey = args.find(finder)?;
        program.note_survey(&args, &survey);
        let mut totals = Totals::default();
        for mut ring in survey.rings {
            let bufs = match buffers.read(&args, &ring) {
                Ok(bufs) => bufs,
                Err(error) => {
                    program.note_error(&error);
                    continue;
                }
            };
            ring.pinned = Some(Pinned::of(&bufs, bufs.consistency()));
            ring.nr_bufs = u32::try_from(bufs.len()).ok();
            let attached = pages.as_mut().map(|pages| pages.of(&args, &ring));
            let mut attached = attached.and_then(|pages| program.noted(pages));
            let mut below = |buf: &RegisteredBuf, out: &mut dyn Write| match &mut attached {
                Some(pages) => print_pages(program, &args, &ring, pages, buf, out),
                None => Ok(()),
            };
            match args.format {
                Format::Json => print_json(&args, &ring, &bufs, &mut below, out)?,
                Format::Table => {
                    print_ring(&args, &ring, &bufs, &mut below, out)?;
                    totals.add(&ring);
                }
            }
        }
        totals.print(out)
    })
}

/// Prints what comes after a buffer.
type Below<'a> = dyn FnMut(&RegisteredBuf, &mut dyn Write) -> Result<(), Stop> + 'a;

/// The slots that are to be shown.
fn shown<'a>(args: &Args, bufs: &'a [RegisteredBuf]) -> impl Iterator<Item = &'a RegisteredBuf> {
    let all = args.all_slots;
    bufs.iter().filter(move |buf| all || !buf.is_empty_slot())
}

fn print_json(
    args: &Args,
    ring: &Ring,
    bufs: &Snapshot<'_>,
    below: &mut Below<'_>,
    out: &mut dyn Write,
) -> Result<(), Stop> {
    let (pid, fd) = common::named_by(ring, args);
    let mut head = ring_json(ring);
    head["backend"] = bufs.backend().to_string().into();
    writeln!(out, "{head}")?;
    for buf in shown(args, bufs) {
        writeln!(out, "{}", buf_json(pid, fd, ring.inode, buf))?;
        below(buf, out)?;
    }
    Ok(())
}

fn buf_json(pid: u32, fd: Option<i32>, ring: u64, buf: &RegisteredBuf) -> Value {
    json!({
        "type": "buf",
        "pid": pid,
        "fd": fd,
        "ring": ring,
        "index": buf.index(),
        "empty": buf.is_empty_slot(),
        "addr": buf.addr(),
        "len": buf.len(),
        "tag": buf.tag(),
        "nr_pages": buf.nr_pages(),
        "pinned_pages": buf.pinned_pages(),
        "acct_pages": buf.acct_pages(),
        "nr_bvecs": buf.nr_bvecs(),
        "bvec_shift": buf.bvec_shift(),
        "refs": buf.refs(),
        "kernel": buf.is_kernel(),
        "direction": buf.direction().map(direction),
    })
}

fn direction(direction: Direction) -> String {
    let names: Vec<&str> = [(Direction::DEST, "dest"), (Direction::SOURCE, "source")]
        .into_iter()
        .filter(|(one, _)| direction.contains(*one))
        .map(|(_, name)| name)
        .collect();
    names.join("|")
}

fn print_ring(
    args: &Args,
    ring: &Ring,
    bufs: &Snapshot<'_>,
    below: &mut Below<'_>,
    out: &mut dyn Write,
) -> Result<(), Stop> {
    common::print_ring(ring, args, out)?;
    writeln!(
        out,
        "  {} in {}: {} pinned{}{}",
        common::count(bufs.filled().count(), "buffer"),
        common::count(bufs.len(), "slot"),
        human(bufs.pinned_bytes()),
        match ring.pinned.and_then(|pinned| pinned.accounted) {
            Some(bytes) => format!(", {} accounted", human(bytes)),
            None => String::new(),
        },
        match bufs.consistency() {
            Consistency::Raw => format!(". {}", common::how_read(Consistency::Raw, "uring_lock")),
            consistency => format!(" ({})", common::how_read(consistency, "uring_lock")),
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
        let mut table = common::table(header, &[0, 1, 2, 3, 4, 5, 6, 7, 8]);
        for buf in shown(args, bufs) {
            table.add_row(row(buf));
        }
        common::print_indented(&table, out)?;
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
    vec![
        buf.index().to_string(),
        format!("{:#x}", buf.addr()),
        human(buf.len()),
        buf.nr_pages().to_string(),
        or_unknown(buf.nr_bvecs()),
        or_unknown(buf.bvec_shift().map(|shift| human(1u64 << (shift & 63)))),
        or_unknown(
            buf.acct_pages()
                .map(|pages| human(u64::from(pages) * buf.page_size())),
        ),
        or_unknown(buf.refs()),
        or_unknown(buf.tag().map(|tag| format!("{tag:#x}"))),
        match buf.is_kernel() {
            Some(true) => "kernel".into(),
            Some(false) => "user".into(),
            None => "?".into(),
        },
    ]
}

/// Lists the pages of one ring's buffers after the other's.
#[derive(Default)]
struct Pages {
    iter: Option<BufPages>,
}

impl Pages {
    /// Attached to this ring. What is loaded serves for the next one, too,
    /// where it can.
    fn of(&mut self, args: &Args, ring: &Ring) -> Result<&mut BufPages, Error> {
        let loaded = self.iter.take();
        let turned = loaded.and_then(|mut iter| iter.reattach(ring).is_ok().then_some(iter));
        let options = BufPages::options().backend(args.backend());
        let iter = turned.map_or_else(|| options.attach_ring(ring), Ok)?;
        Ok(self.iter.insert(iter))
    }
}

fn print_pages(
    program: &mut Program,
    args: &Args,
    ring: &Ring,
    pages: &mut BufPages,
    buf: &RegisteredBuf,
    out: &mut dyn Write,
) -> Result<(), Stop> {
    let segments = if args.locked {
        pages.segments_locked(buf.index(), LOCK_LIMIT)
    } else if args.raw {
        pages.segments_raw(buf.index())
    } else {
        pages.segments(buf.index())
    };
    let Some(segments) = program.noted(segments) else {
        return Ok(());
    };
    if args.format == Format::Table {
        return print_runs(buf, &segments, out);
    }
    let (pid, fd) = common::named_by(ring, args);
    for (i, segment) in segments.iter().enumerate() {
        let line = json!({
            "type": "segment",
            "pid": pid,
            "fd": fd,
            "ring": ring.inode,
            "index": buf.index(),
            "segment": i,
            "pfn": segment.pfn(),
            "offset": segment.offset(),
            "len": segment.len(),
        });
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// Segments that follow one another in memory.
struct Run {
    pfn: Option<u64>,
    pages: u64,
    offset: u32,
    len: u64,
}

/// Where page frame numbers are not shown, all is one run.
fn runs(segments: &[Segment], page_size: u64) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for segment in segments {
        match runs.last_mut() {
            Some(run)
                if segment.pfn() == run.pfn.map(|pfn| pfn + run.pages)
                    && u64::from(run.offset) + run.len == run.pages * page_size
                    && segment.offset() == 0 =>
            {
                run.pages += segment.nr_pages();
                run.len += u64::from(segment.len());
            }
            _ => runs.push(Run {
                pfn: segment.pfn(),
                pages: segment.nr_pages(),
                offset: segment.offset(),
                len: segment.len().into(),
            }),
        }
    }
    runs
}

fn print_runs(buf: &RegisteredBuf, segments: &[Segment], out: &mut dyn Write) -> Result<(), Stop> {
    let runs = runs(segments, buf.page_size());
    let pages = runs.iter().map(|run| run.pages).sum::<u64>() as usize;
    writeln!(
        out,
        "  buffer {}: {} in {}",
        buf.index(),
        common::count(pages, "page"),
        common::count(runs.len(), "run"),
    )?;
    let mut table = common::table(["PFN", "PAGES", "OFFSET", "LENGTH"], &[0, 1, 2, 3]);
    for run in &runs {
        table.add_row([
            or_unknown(run.pfn.map(|pfn| format!("{pfn:#x}"))),
            run.pages.to_string(),
            run.offset.to_string(),
            human(run.len),
        ]);
    }
    common::print_indented(&table, out)
}

/// What each user pins, and is charged for.
#[derive(Default)]
struct Totals {
    users: BTreeMap<u32, User>,
}

#[derive(Default)]
struct User {
    rings: usize,
    pinned: u64,
    /// All that the kernel charges to the user; `None` if no ring told.
    charged: Option<u64>,
    /// True if all rings that tell are exempt.
    exempt: bool,
    /// The soft limit of the first holder, `Some(None)` for unlimited.
    limit: Option<Option<u64>>,
}

impl Totals {
    fn add(&mut self, ring: &Ring) {
        let owner = ring.owner();
        let uid = match ring.charged {
            Some(Charged::User { uid, .. }) => uid,
            _ => ring.creator_uid.unwrap_or(owner.uid),
        };
        let user = self.users.entry(uid).or_default();
        user.rings += 1;
        user.pinned += ring.pinned.map_or(0, |pinned| pinned.bytes);
        user.limit = user.limit.or_else(|| memlock_limit(owner.pid));
        match ring.charged {
            Some(Charged::User { locked_bytes, .. }) => user.charged = Some(locked_bytes),
            Some(_) => user.exempt = true,
            None => {}
        }
    }

    fn print(&self, out: &mut dyn Write) -> Result<(), Stop> {
        for (uid, user) in &self.users {
            let limit = match user.limit {
                Some(Some(limit)) => format!("RLIMIT_MEMLOCK {}", human(limit)),
                Some(None) => "RLIMIT_MEMLOCK unlimited".into(),
                None => "RLIMIT_MEMLOCK not readable".into(),
            };
            let charged = match (user.charged, user.exempt) {
                (Some(bytes), _) => format!("{} charged to the user, {limit}", human(bytes)),
                (None, true) => "not charged to RLIMIT_MEMLOCK (CAP_IPC_LOCK)".into(),
                (None, false) => format!("charge unknown to this backend, {limit}"),
            };
            writeln!(
                out,
                "uid {uid}: {}, {} pinned; {charged}",
                common::count(user.rings, "ring"),
                human(user.pinned),
            )?;
        }
        Ok(())
    }
}

/// The soft RLIMIT_MEMLOCK of a process in bytes, `Some(None)` for unlimited;
/// not from a /proc whose numbers are not ours.
fn memlock_limit(pid: u32) -> Option<Option<u64>> {
    let own = std::fs::read_link("/proc/self").ok()?;
    if own.as_os_str() != std::process::id().to_string().as_str() {
        return None;
    }
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(None),
        bytes => bytes.parse().ok().map(Some),
    }
}
