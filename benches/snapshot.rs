//! One snapshot of 16,384 one-page buffers, and the search for 1,000 rings,
//! each side by side with reading and parsing fdinfo in the same run.
//!
//! Rounds of all candidates alternate, so that what disturbs the machine
//! disturbs all of them. The best round tells what the work costs, the median
//! what the machine made of it. `cargo bench`, as root.

use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use uring_bpf_iter::{Backend, RegisteredBufs, RingFinder, UringBufIter};
use uring_testkit::{BufSpec, RingBuilder};

const BUFFERS: usize = 16_384;
const RINGS: usize = 1_000;
const ROUNDS: usize = 41;

fn main() -> Result<(), Box<dyn Error>> {
    snapshots()?;
    discovery()?;
    Ok(())
}

fn snapshots() -> Result<(), Box<dyn Error>> {
    let mut ring = RingBuilder::new(8).build()?;
    ring.register(&vec![BufSpec::new(4096); BUFFERS])?;
    let before = resident()?;
    let mut task_file = UringBufIter::options()
        .backend(Backend::TaskFile)
        .attach(&ring)?;
    let mut fdinfo = UringBufIter::options()
        .backend(Backend::Fdinfo)
        .attach(&ring)?;
    let expected: u64 = task_file.snapshot()?.iter().map(|buf| buf.addr()).sum();
    let with_task_file = resident()?;

    let mut times = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        times[0].push(time(|| check(&task_file.snapshot()?, expected))?);
        times[1].push(time(|| check(&task_file.snapshot_raw()?, expected))?);
        times[2].push(time(|| {
            check(
                &task_file.snapshot_locked(Duration::from_secs(5))?,
                expected,
            )
        })?);
        times[3].push(time(|| check(&fdinfo.snapshot()?, expected))?);
    }
    println!("Snapshot of {BUFFERS} registered one-page buffers, warm, {ROUNDS} rounds:");
    let names = [
        "task-file, verified",
        "task-file, raw",
        "task-file, locked*",
        "fdinfo, read and parsed",
    ];
    report(&names, &times, BUFFERS, "record");
    println!("  * with the start of a process and the tracepoint's attach and detach");
    println!(
        "  memory of the task-file iterator: {} KiB resident, of which {} KiB are the records",
        with_task_file.saturating_sub(before),
        BUFFERS * 48 / 1024,
    );
    Ok(())
}

/// Looks at every record, as a reader would.
fn check(bufs: &[uring_bpf_iter::RegisteredBuf], expected: u64) -> Result<(), Box<dyn Error>> {
    let sum: u64 = bufs.filled().map(|buf| buf.addr()).sum();
    match sum == expected {
        true => Ok(()),
        false => Err("a snapshot differs from the first".into()),
    }
}

fn discovery() -> Result<(), Box<dyn Error>> {
    let rings: Vec<_> = (0..RINGS)
        .map(|_| {
            let mut ring = RingBuilder::new(1).build()?;
            ring.register(&[BufSpec::new(4096)])?;
            Ok(ring)
        })
        .collect::<Result<_, std::io::Error>>()?;
    let mut task_file = RingFinder::with_backend(Backend::TaskFile)?;
    let mut fdinfo = RingFinder::with_backend(Backend::Fdinfo)?;
    let find = |finder: &mut RingFinder| -> Result<(), Box<dyn Error>> {
        let found = finder.find_all()?.rings.len();
        match found >= rings.len() {
            true => Ok(()),
            false => Err(format!("{found} rings found of {}", rings.len()).into()),
        }
    };
    let mut times = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        times[0].push(time(|| find(&mut task_file))?);
        times[1].push(time(|| find(&mut fdinfo))?);
    }
    println!("Search of the whole machine for {RINGS} rings of one buffer, {ROUNDS} rounds:");
    report(&["task-file", "fdinfo"], &times, RINGS, "ring");
    Ok(())
}

fn time(run: impl FnOnce() -> Result<(), Box<dyn Error>>) -> Result<Duration, Box<dyn Error>> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed())
}

/// The last one is the peer that the others are compared with.
fn report(names: &[&str], times: &[Vec<Duration>], items: usize, item: &str) {
    let sorted: Vec<Vec<f64>> = times
        .iter()
        .map(|times| {
            let mut ns: Vec<f64> = times
                .iter()
                .map(|time| time.as_secs_f64() * 1e9 / items as f64)
                .collect();
            ns.sort_by(f64::total_cmp);
            ns
        })
        .collect();
    let best = |ns: &[f64]| ns[0];
    let median = |ns: &[f64]| ns[ns.len() / 2];
    let peer = &sorted[sorted.len() - 1];
    for (name, ns) in names.iter().zip(&sorted) {
        println!(
            "  {name:<24} best {:>8.1} ns a {item} ({:>5.1} x fdinfo's speed), \
             median {:>8.1} ({:>5.1} x)",
            best(ns),
            best(peer) / best(ns),
            median(ns),
            median(peer) / median(ns),
        );
    }
}

/// Resident memory of this process in KiB.
fn resident() -> Result<usize, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .ok_or("no VmRSS in /proc/self/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
