//! `uringctl bufs`, and a script that reads /proc: the registered buffers of all rings
//! of the machine as JSON. A process for each look.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};

use serde_json::Value;
use uring_bpf_iter::Ring;
use uring_testkit::cpu_time_of_children;

use crate::bench::{wall, Bench, Candidate, Case, Clock, Result};
use crate::rings::{one_each, rings_of, Texts};

const TOOL: &str = "uringctl bufs --format json";
const SCRIPT: &str = "bufs_by_proc.py";

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let Some(holders) = one_each(bench, "tool")? else {
        return Ok(());
    };
    let known = known(&rings_of(&holders)?)?;
    let items = known.len();
    let mut ways = Vec::new();
    for (name, words) in [(TOOL, tool()), (SCRIPT, script(bench))] {
        match words {
            Ok(words) => {
                check(&words, &known).map_err(|e| format!("{name}: {e}"))?;
                ways.push((name, words));
            }
            Err(why) => bench.leave_out(format!("tool, {name}"), why),
        }
    }
    let clocks = [("tool", wall as Clock), ("tool, CPU", cpu_time_of_children)];
    for (group, clock) in clocks {
        let all = ways.iter().map(|(name, words)| {
            let look = move || match run_once(words, count_lines)? {
                lines if lines < items as u64 => Err("some buffers are missing".into()),
                lines => Ok(lines),
            };
            Candidate::new(name, look).by_clock(clock)
        });
        let case = Case {
            group,
            items,
            item: "buffer",
            each: false,
        };
        bench.compare(case, all.collect())?;
    }
    Ok(())
}

/// Process, descriptor, index, address and length.
type Row = [u64; 5];

/// What /proc tells of these rings.
fn known(rings: &[Ring]) -> Result<BTreeSet<Row>> {
    let mut texts = Texts::new()?;
    let mut all = BTreeSet::new();
    for ring in rings {
        let (pid, fd) = (ring.owner().pid, ring.owner().fd().unwrap_or(-1));
        let bufs = texts.bufs(ring)?.iter().enumerate();
        all.extend(bufs.map(|(i, &(addr, len))| [pid.into(), fd as u64, i as u64, addr, len]));
    }
    Ok(all)
}

/// The program of this workspace, which cargo does not build for benchmarks.
fn tool() -> Result<Vec<PathBuf>> {
    let program = std::env::current_exe()?.with_file_name("../uringctl");
    if !program.exists() {
        let why = "not built: `cargo build --release -p uring-tools` comes first";
        return Err(why.into());
    }
    let words = TOOL.split(' ').skip(1).map(PathBuf::from);
    Ok([program].into_iter().chain(words).collect())
}

/// Python itself: `python3` may be a script that looks for it.
fn script(bench: &mut Bench) -> Result<Vec<PathBuf>> {
    let ask = "import sys; print(sys.executable, sys.version.split()[0], sep='\\n')";
    let said = Command::new("python3").args(["-c", ask]).output()?;
    let said = String::from_utf8(said.stdout)?;
    let [program, version] = said.lines().collect::<Vec<_>>()[..] else {
        return Err("python3 does not say where it is".into());
    };
    bench.note(format!("`{SCRIPT}`: Python {version}"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("benches/peers")
        .join(SCRIPT);
    Ok(vec![program.into(), script])
}

/// Whether the process tells of all that is known.
fn check(words: &[PathBuf], known: &BTreeSet<Row>) -> Result<()> {
    let mut said = String::new();
    run_once(words, |mut from| Ok(from.read_to_string(&mut said)? as u64))?;
    let mut told = BTreeSet::new();
    for line in said.lines() {
        let line: Value = serde_json::from_str(line)?;
        let field = |key: &str| line[key].as_u64();
        let row = ["pid", "fd", "index", "addr", "len"].map(field);
        // A line about the ring has fewer.
        if let [Some(pid), Some(fd), Some(index), Some(addr), Some(len)] = row {
            told.insert([pid, fd, index, addr, len]);
        }
    }
    match known.difference(&told).count() {
        0 => Ok(()),
        missed => Err(format!("{missed} of {} buffers are missing", known.len()).into()),
    }
}

fn run_once(words: &[PathBuf], read: impl FnOnce(ChildStdout) -> Result<u64>) -> Result<u64> {
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let read = read(child.stdout.take().ok_or("no output")?);
    // However it ends: a ring of somebody else may go while it is looked at.
    child.wait()?;
    read
}

fn count_lines(mut from: ChildStdout) -> Result<u64> {
    // As much at once as a pipe holds.
    let mut room = vec![0; 1 << 16];
    let mut lines = 0;
    loop {
        match from.read(&mut room)? {
            0 => return Ok(lines),
            read => lines += memchr::memchr_iter(b'\n', &room[..read]).count() as u64,
        }
    }
}
