//! `cargo xtask test`: the list of steps, their run, and the summary.
//! What a step does is in the modules below.

mod beside;
mod deps;
mod guest;
mod package;
mod sanitize;
mod style;
mod suites;
mod unsafe_code;

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::run::heading;
use crate::system::{self, Need};
use beside::{Lane, Log};

/// How a step that did not fail ended.
enum Outcome {
    /// It ran, and all was well.
    Passed,
    /// It did not run, for this reason.
    NotRun(String),
}

use Outcome::{NotRun, Passed};

struct Step {
    /// What `--step` takes.
    name: &'static str,
    title: &'static str,
    needs: &'static [&'static [Need]],
    run: Run,
}

enum Run {
    /// In its turn.
    Here(fn() -> Result<Outcome>),
    /// With a kernel of ours, beside the others; shown after them.
    Beside(fn(&Log) -> Result<()>),
}

use Run::{Beside, Here};

const fn step(
    name: &'static str,
    title: &'static str,
    needs: &'static [&'static [Need]],
    run: Run,
) -> Step {
    Step {
        name,
        title,
        needs,
        run,
    }
}

/// What a step needs that compiles the library with its default features.
const BUILD: &[&[Need]] = &[system::BUILD];
/// What the integration tests need.
const SUITE: &[&[Need]] = &[system::BUILD, system::SUITE];

/// What the same tests need in a virtual machine.
const GUEST: &[&[Need]] = &[system::BUILD, system::SUITE, system::KERNEL, system::VM];

/// First what goes on beside the rest: emulated processors fill the gaps that linkers
/// and sleeping tests leave. Then quick ones first.
#[rustfmt::skip]
const STEPS: &[Step] = &[
    step("kernels", "kernels with the patches", &[system::KERNEL], Beside(guest::kernels)),
    step("vm-harness", "VM harness reports what goes wrong", GUEST, Beside(guest::harness)),
    step("vm-plain", "integration tests, plain kernel", GUEST, Beside(guest::plain)),
    step("vm-debug", "integration tests, debug kernel", GUEST, Beside(guest::debug)),
    step("fmt", "Rust format", &[], Here(style::fmt)),
    step("clang-format", "BPF format", &[system::CLANG_FORMAT], Here(style::clang_format)),
    step("bpf", "BPF objects match their sources", &[system::BPF], Here(style::bpf)),
    step("series", "series of patches differ as meant", &[], Here(style::series)),
    step("unsafe", "unsafe only in its two places", BUILD, Here(unsafe_code::check)),
    step("clippy", "clippy, for every feature set", BUILD, Here(style::clippy)),
    step("doc", "documentation", BUILD, Here(style::doc)),
    step("no-native", "library without native libraries", &[], Here(package::without_native_libraries)),
    step("unit", "unit and doc tests", BUILD, Here(suites::unit)),
    step("no-features", "unit tests, features off", &[], Here(suites::no_features)),
    step("harness", "VM harness: lints and unit tests", &[], Here(suites::harness)),
    step("kit", "test kit, the oracle of the rest", SUITE, Here(suites::kit)),
    step("integration", "integration tests, this kernel", SUITE, Here(suites::integration)),
    step("bench", "benchmarks run, not for numbers", SUITE, Here(suites::bench)),
    step("asan", "AddressSanitizer", SUITE, Here(sanitize::address)),
    step("package", "package builds by itself", BUILD, Here(package::package)),
    step("licences", "licences and sources", &[], Here(deps::licences)),
    step("advisories", "advisory database", &[], Here(deps::advisories)),
    step("miri", "Miri", &[], Here(sanitize::miri)),
    step("msrv", "build with the oldest Rust", BUILD, Here(suites::msrv)),
];

/// The names that `--step` takes.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    STEPS.iter().map(|step| step.name)
}

/// Runs the named steps, or all, on this machine's kernel alone or on ours, too;
/// says whether none failed.
pub(crate) fn test(only: &[String], host_only: bool) -> bool {
    let start = Instant::now();
    let chosen = |step: &&Step| only.is_empty() || only.iter().any(|name| name == step.name);
    let left_out = |step: &&Step| host_only && matches!(step.run, Beside(_));
    let chosen = STEPS.iter().filter(chosen);
    let (left_out, steps): (Vec<&Step>, Vec<&Step>) = chosen.partition(left_out);

    println!("{}", system::describe());
    let mut report = Report::default();
    for step in left_out {
        println!("LEFT OUT by --host-only: {} ({})", step.title, step.name);
        let why = "left out by --host-only, which boots no kernel of ours";
        report.note(step.title, Duration::ZERO, Ok(NotRun(why.into())));
    }
    report.take("Packages that the steps need", || {
        let needs = steps.iter().flat_map(|step| step.needs.iter().copied());
        system::ensure(needs.flatten()).map(|()| Passed)
    });
    let lane = Lane::open();
    let mut jobs = Vec::new();
    for step in steps {
        match step.run {
            Here(run) => report.take(step.title, run),
            Beside(run) => jobs.push((step, lane.start(step.name, run))),
        }
    }
    for (step, job) in jobs {
        heading(&format!("{} (beside the others)", step.title));
        let (result, took) = match job {
            Ok(job) => job.show(),
            Err(error) => (Err(error), Duration::ZERO),
        };
        report.note(step.title, took, result.map(|()| Passed));
    }
    report.sum_up(start.elapsed())
}

/// The lines of the summary, and their count.
#[derive(Default)]
struct Report {
    lines: Vec<String>,
    passed: usize,
    failed: usize,
    not_run: usize,
}

impl Report {
    /// Runs one step and notes how it went.
    fn take(&mut self, title: &str, run: impl FnOnce() -> Result<Outcome>) {
        heading(title);
        let start = Instant::now();
        let outcome = run();
        self.note(title, start.elapsed(), outcome);
    }

    /// Notes how a step went.
    fn note(&mut self, title: &str, took: Duration, outcome: Result<Outcome>) {
        let word = match outcome {
            Ok(Passed) => {
                self.passed += 1;
                "ok".to_owned()
            }
            Ok(NotRun(reason)) => {
                self.not_run += 1;
                format!("not run: {reason}")
            }
            Err(error) => {
                self.failed += 1;
                println!("FAILED: {error:#}");
                "FAILED".to_owned()
            }
        };
        let seconds = took.as_secs_f64();
        self.lines
            .push(format!("{title:<34} {seconds:>7.1} s  {word}"));
    }

    /// Prints the summary; its last line is the count.
    fn sum_up(self, took: Duration) -> bool {
        heading("Summary");
        for line in &self.lines {
            println!("{line}");
        }
        let Self {
            passed,
            failed,
            not_run,
            ..
        } = self;
        let minutes = took.as_secs_f64() / 60.0;
        println!("\neverything took {minutes:.1} minutes");
        println!("{passed} passed, {failed} failed, {not_run} skipped");
        failed == 0
    }
}
