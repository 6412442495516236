//! The registered buffers of every ring of the machine, of one process, or of
//! one descriptor: as text, or as JSON with one object a line.
//!
//! `dump_bufs [--pid PID] [--fd FD] [--backend NAME] [--format table|json]`
//!
//! `uringctl bufs` (in tools/) prints the same JSON, and has more options.

use std::env;
use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use serde::Serialize;
use serde_json::{json, Value};
use uring_bpf_iter::{Backend, Pinned, RegisteredBufs, Ring, RingFinder, UringBufReader};

#[derive(Default)]
struct Options {
    pid: Option<u32>,
    fd: Option<i32>,
    backend: Option<Backend>,
    json: bool,
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options, Box<dyn Error>> {
    let mut options = Options::default();
    while let Some(name) = args.next() {
        let value = args.next().ok_or(format!("{name} needs a value"))?;
        match (&*name, &*value) {
            ("--pid", pid) => options.pid = Some(pid.parse()?),
            ("--fd", fd) => options.fd = Some(fd.parse()?),
            ("--backend", "auto") => options.backend = None,
            ("--backend", backend) => options.backend = Some(backend.parse()?),
            ("--format", "json" | "table") => options.json = value == "json",
            _ => return Err(format!("{name} {value} is not an option").into()),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = options(env::args().skip(1));
    options.and_then(dump).unwrap_or_else(|error| {
        eprintln!("dump_bufs: {error}");
        ExitCode::FAILURE
    })
}

fn dump(options: Options) -> Result<ExitCode, Box<dyn Error>> {
    // A native iterator reads one ring: another backend has to find it.
    let mut finder = RingFinder::with_backend(match options.backend {
        Some(Backend::Native) => None,
        other => other,
    })?;
    let rings = match (options.pid, options.fd) {
        (Some(pid), Some(fd)) => vec![finder.find_fd(pid, fd)?],
        (Some(pid), None) => finder.find_in(pid)?.rings,
        (None, Some(_)) => return Err("--fd needs --pid".into()),
        (None, None) => finder.find_all()?.rings,
    };
    let mut reader = UringBufReader::options().backend(options.backend).reader();
    let mut code = ExitCode::SUCCESS;
    for ring in rings {
        match text_of(&options, &mut reader, ring) {
            Ok(text) => match io::stdout().write_all(text.as_bytes()) {
                Err(e) if e.kind() == ErrorKind::BrokenPipe => break, // as with `| head`
                written => written?,
            },
            Err(error) => {
                eprintln!("dump_bufs: {error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

fn text_of(
    options: &Options,
    reader: &mut UringBufReader,
    mut ring: Ring,
) -> uring_bpf_iter::Result<String> {
    let asked = options.pid.and_then(|pid| ring.holder(pid, options.fd));
    let holder = asked.unwrap_or(ring.owner());
    let (inode, pid, tid, fd) = (ring.inode, holder.pid, holder.tid, holder.fd());
    let bufs = reader.snapshot(&ring)?; // derefs to &[RegisteredBuf]
    ring.pinned = Some(Pinned::of(&bufs, bufs.consistency()));
    ring.nr_bufs = u32::try_from(bufs.len()).ok();
    let backend = bufs.backend().to_string();
    if options.json {
        let time_ms = UNIX_EPOCH
            .elapsed()
            .map_or(0, |time| time.as_millis() as u64);
        let keys = json!({"type": "ring", "time_ms": time_ms, "backend": backend});
        let mut text = line(keys, &ring);
        for buf in bufs.filled() {
            let keys = json!({"type": "buf", "pid": pid, "tid": tid, "fd": fd, "ring": inode});
            text += &line(keys, buf);
        }
        return Ok(text);
    }
    let (nr, bytes) = (bufs.filled().count(), bufs.pinned_bytes());
    let fd = fd.map_or("without a descriptor".into(), |fd| {
        format!("descriptor {fd}")
    });
    let mut text = format!("ring {inode}: process {pid}, {fd}\n");
    text += &format!("  buffers: {nr}, pinned: {bytes} bytes (by {backend})\n");
    for buf in bufs.filled() {
        let (index, addr, len) = (buf.index(), buf.addr(), buf.len());
        text += &format!("  {index:>5} {addr:#018x} {len:>10} bytes\n");
    }
    Ok(text)
}

/// A line of JSON: the keys that say what a record is, then those of the record.
fn line(mut keys: Value, record: impl Serialize) -> String {
    if let (Some(keys), Value::Object(record)) = (keys.as_object_mut(), json!(record)) {
        keys.extend(record);
    }
    format!("{keys}\n")
}
