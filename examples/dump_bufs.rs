//! The registered buffers of every ring of the machine, of one process, or of
//! one descriptor: as text, or as JSON with one object a line.
//!
//! `dump_bufs [--pid PID] [--fd FD] [--backend NAME] [--format table|json]`
//!
//! `uringctl bufs` (in tools/) prints the same JSON, and has more options.

#[path = "../tools/src/soon.rs"]
mod soon;

use std::env;
use std::error::Error;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::json;
use uring_bpf_iter::{Backend, Pinned, RegisteredBufs, Ring, RingFinder, Snapshot, UringBufIter};

#[derive(Default)]
struct Options {
    pid: Option<u32>,
    fd: Option<i32>,
    backend: Backend, // TODO after the merge: Option<Backend>, None for the best that works
    json: bool,
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options, Box<dyn Error>> {
    let mut options = Options::default();
    while let Some(name) = args.next() {
        let value = args.next().ok_or(format!("{name} needs a value"))?;
        match (&*name, &*value) {
            ("--pid", pid) => options.pid = Some(pid.parse()?),
            ("--fd", fd) => options.fd = Some(fd.parse()?),
            ("--backend", backend) => options.backend = soon::backend(backend)?,
            ("--format", "json" | "table") => options.json = value == "json",
            _ => return Err(format!("{name} {value} is not an option").into()),
        }
    }
    Ok(options)
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options(env::args().skip(1))?;
    let mut out = BufWriter::new(io::stdout().lock());
    match show(&options, &mut out).and_then(|()| Ok(out.flush()?)) {
        Err(error) if is_broken_pipe(&*error) => Ok(()), // as with `| head`
        done => done,
    }
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn show(options: &Options, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let mut finder = RingFinder::new()?;
    let survey = match options.pid {
        Some(pid) => finder.find_in(pid)?,
        None => finder.find_all()?,
    };
    for mut ring in survey.rings {
        let pid = options.pid.unwrap_or(ring.owner().pid);
        let Some(holder) = ring.holder(pid, options.fd) else {
            continue; // another descriptor was asked for
        };
        let fd = holder.fd();
        let reader = UringBufIter::options().backend(options.backend);
        let mut iter = reader.attach_ring(&ring)?;
        let bufs = iter.snapshot()?; // derefs to &[RegisteredBuf]
        ring.pinned = Some(Pinned::of(&bufs, bufs.consistency()));
        ring.nr_bufs = u32::try_from(bufs.len()).ok();
        match options.json {
            true => print_json(&ring, pid, fd, &bufs, out)?,
            false => print_text(&ring, pid, fd, &bufs, out)?,
        }
    }
    Ok(())
}

/// A line of JSON: the keys that say what a record is, and those of the record.
#[derive(Serialize)]
struct Line<K, R> {
    #[serde(flatten)]
    keys: K,
    #[serde(flatten)]
    record: R,
}

#[rustfmt::skip]
fn print_json(
    ring: &Ring, pid: u32, fd: Option<i32>, bufs: &Snapshot<'_>, out: &mut impl Write,
) -> io::Result<()> {
    let time_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis() as u64);
    let backend = bufs.backend().to_string();
    let keys = json!({"type": "ring", "time_ms": time_ms, "backend": backend});
    writeln!(out, "{}", json!(Line { keys, record: soon::ring(ring) }))?;
    for buf in bufs.filled() {
        let keys = json!({"type": "buf", "pid": pid, "fd": fd, "ring": ring.inode});
        writeln!(out, "{}", json!(Line { keys, record: soon::buf(buf) }))?;
    }
    Ok(())
}

#[rustfmt::skip]
fn print_text(
    ring: &Ring, pid: u32, fd: Option<i32>, bufs: &Snapshot<'_>, out: &mut impl Write,
) -> io::Result<()> {
    let (nr, bytes) = (bufs.filled().count(), bufs.pinned_bytes());
    let fd = fd.map_or("none".into(), |fd| fd.to_string());
    writeln!(out, "ring {}: process {pid}, descriptor {fd}", ring.inode)?;
    writeln!(out, "  {nr} buffers, {bytes} bytes pinned ({})", bufs.consistency())?;
    for buf in bufs.filled() {
        let (index, addr, len) = (buf.index(), buf.addr(), buf.len());
        writeln!(out, "  {index:>5} {addr:#018x} {len:>10} bytes, tag {:?}", buf.tag())?;
    }
    Ok(())
}
