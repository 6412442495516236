//! What this crate reads, beside others that read the same in the same run, on
//! rings of known contents. `cargo bench`, as root; a name (`cargo bench --
//! files`) runs that group alone.
//!
//! ```text
//! snapshot, files, … ──Candidates──▶ Bench::compare ──criterion──▶ estimates.json
//! disturb (by itself)  ──────────────────────┐                          │
//!                                            └────▶ report ◀────────────┘──▶ plot
//! ```
//!
//! What a candidate reads is checked against what was registered before it is
//! measured. Nothing fails for being slow.

mod bench;
mod cold;
mod discover;
mod disturb;
mod drgn;
mod epoll;
mod files;
mod holders;
mod limits;
mod machine;
mod median;
mod pages;
mod plot;
mod report;
mod rings;
mod snapshot;
mod start;
mod text;
mod tool;
mod tools;

use std::process::ExitCode;

use bench::{Bench, Result};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.split_first() {
        // This program again, as the process that is measured or looked at.
        Some((role, rest)) if role == start::ROLE => start::first_record(rest),
        Some((role, rest)) if role == holders::ROLE => holders::hold(rest),
        _ => run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

type Group = fn(&mut Bench) -> Result<()>;

const GROUPS: &[(&str, Group)] = &[
    ("snapshot", snapshot::run),
    ("files", files::run),
    ("epoll", epoll::run),
    ("pages", pages::run),
    ("discover", discover::run),
    ("rings", rings::run),
    ("tool", tool::run),
    ("start", start::run),
    ("disturb", disturb::run),
];

fn run(args: &[String]) -> Result<()> {
    let mut bench = Bench::new(args);
    // Criterion knows the filter and tells nobody: this spares what a group sets up.
    let words = args.iter().filter(|arg| !arg.starts_with('-'));
    let named = |name: &str| words.clone().any(|arg| arg.contains(name));
    let all = !GROUPS.iter().any(|(name, _)| named(name));
    for (name, group) in GROUPS {
        if all || named(name) {
            group(&mut bench).map_err(|e| format!("{name}: {e}"))?;
        }
    }
    report::finish(&bench)
}
