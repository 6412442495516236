//! From the start of a process to its first record, and where the time goes. The
//! process is this program again, which then does nothing else.

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use uring_bpf_iter::{Backend, UringBufIter};
use uring_testkit::TestRing;

use crate::bench::{Bench, Candidate, Case, Result, Table};
use crate::snapshot::ring_of;
use crate::text;

/// The argument that makes this program such a process.
pub(crate) const ROLE: &str = "first-record";

const BUFFERS: &[usize] = &[1, 16_384];

/// What may be measured, and how this program is told.
const WAYS: &[(&str, &str, Option<Backend>)] = &[
    ("native", "native", Some(Backend::Native)),
    ("task-file", "task-file", Some(Backend::TaskFile)),
    ("fdinfo, this crate", "fdinfo", Some(Backend::Fdinfo)),
    ("fdinfo, read and parsed", "text", None),
];

/// Where the time went, once.
#[derive(Clone, Copy)]
struct Phases {
    /// Until `main`, and from the last record's way back.
    process: Duration,
    attach: Duration,
    read: Duration,
}

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let version = Command::new("bpftool").arg("version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let version = version.unwrap_or_else(|e| format!("bpftool: {e}"));
    bench.leave_out(
        format!(
            "start, bpftool iter ({})",
            version.lines().next().unwrap_or_default()
        ),
        "it attaches an iterator to a map or to nothing, not to a ring, and has no program \
         of its own that would print registered buffers",
    );
    let numbers = if bench.once { &BUFFERS[..1] } else { BUFFERS };
    for &items in numbers {
        let ring = ring_of(items)?;
        let phases: Vec<RefCell<Vec<Phases>>> = WAYS.iter().map(|_| RefCell::default()).collect();
        let mut all = Vec::new();
        for ((name, way, backend), phases) in WAYS.iter().zip(&phases) {
            // Whether it can serve at all is asked here: a process can only fail.
            let serves = backend.map(|backend| UringBufIter::options().backend(backend));
            let made = match serves.map(|options| options.attach(&ring)) {
                Some(Err(error)) => Err(error.into()),
                Some(Ok(_)) | None => Ok(process(name, way, &ring, phases)?),
            };
            all.extend(bench.candidate("start", name, made)?);
        }
        let case = Case {
            group: "start",
            items,
            item: "buffer",
            each: false,
        };
        bench.compare(case, all)?;
        tell(bench, items, &phases);
    }
    Ok(())
}

/// One process a look.
fn process<'a>(
    name: &'static str,
    way: &'a str,
    ring: &TestRing,
    phases: &'a RefCell<Vec<Phases>>,
) -> Result<Candidate<'a>> {
    let first = ring.expected()[0].ok_or("no buffer")?.addr;
    let (pid, fd) = (std::process::id().to_string(), ring.raw_fd().to_string());
    let last: Rc<RefCell<Option<Child>>> = Rc::default();
    let ended = last.clone();
    Ok(Candidate::new(name, move || {
        let start = Instant::now();
        let mut child = Command::new("/proc/self/exe")
            .args([ROLE, way, &pid, &fd])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut said = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut said)?;
        let whole = start.elapsed();
        let numbers: Vec<u64> = said
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let &[addr, attach, read] = &numbers[..] else {
            return Err(format!("{way}: {}, no record", child.wait()?).into());
        };
        if addr != first {
            return Err("another first record than what was registered".into());
        }
        let [attach, read] = [attach, read].map(Duration::from_nanos);
        phases.borrow_mut().push(Phases {
            process: whole.saturating_sub(attach + read),
            attach,
            read,
        });
        *last.borrow_mut() = Some(child);
        Ok(addr)
    })
    .settled_by(move || {
        if let Some(mut child) = ended.take() {
            let _it_has_said_all = child.wait();
        }
    }))
}

/// What such a process does: prints the address of the first buffer, and how
/// many nanoseconds it took to attach (to open) and to read.
pub(crate) fn first_record(args: &[String]) -> Result<()> {
    let start = Instant::now();
    let [way, pid, fd] = args else {
        return Err("wrong arguments".into());
    };
    let (pid, fd) = (pid.parse()?, fd.parse::<i32>()?);
    let way = WAYS.iter().find(|(_, name, _)| name == way);
    let (_, _, backend) = way.ok_or("no such way")?;
    let (addr, attached) = match backend {
        Some(backend) => {
            let options = UringBufIter::options().backend(*backend);
            let mut iter = options.attach_pid(pid, fd)?;
            let attached = start.elapsed();
            (iter.snapshot()?[0].addr(), attached)
        }
        None => {
            let mut file = File::open(format!("/proc/{pid}/fdinfo/{fd}"))?;
            let attached = start.elapsed();
            let mut bytes = vec![0; 1 << 16];
            let read = file.read(&mut bytes)?;
            let addr = text::first_buf(&bytes[..read]).ok_or("no buffer in fdinfo")?;
            (addr, attached)
        }
    };
    let read = start.elapsed() - attached;
    println!("{addr} {} {}", attached.as_nanos(), read.as_nanos());
    Ok(())
}

fn tell(bench: &mut Bench, items: usize, phases: &[RefCell<Vec<Phases>>]) {
    let title = format!("Where the time of `start` goes, number of buffers {items}: medians");
    let heading = ["by", "process, until main", "attach or open", "read"];
    let mut table = Table::new(title, heading);
    for ((name, _, _), phases) in WAYS.iter().zip(phases) {
        let phases = phases.borrow();
        if phases.is_empty() {
            continue;
        }
        let median = |of: fn(&Phases) -> Duration| {
            let mut all: Vec<Duration> = phases.iter().map(of).collect();
            all.sort_unstable();
            format!("{:.2} ms", all[all.len() / 2].as_secs_f64() * 1e3)
        };
        table.row([
            (*name).to_owned(),
            median(|phases| phases.process),
            median(|phases| phases.attach),
            median(|phases| phases.read),
        ]);
    }
    bench.tables.push(table);
}
