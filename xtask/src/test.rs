//! `cargo xtask test`: the list of steps, their run, and the summary.
//! What a step does is in the modules below.

mod deps;
mod package;
mod sanitize;
mod style;
mod suites;
mod unsafe_code;

use std::time::Instant;

use anyhow::Result;

use crate::run::heading;
use crate::system::{self, Need};

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
    run: fn() -> Result<Outcome>,
}

const fn step(
    name: &'static str,
    title: &'static str,
    needs: &'static [&'static [Need]],
    run: fn() -> Result<Outcome>,
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

/// Quick ones first.
#[rustfmt::skip]
const STEPS: &[Step] = &[
    step("fmt", "Rust format", &[], style::fmt),
    step("clang-format", "BPF format", &[system::CLANG_FORMAT], style::clang_format),
    step("bpf", "BPF objects match their sources", &[system::BPF], style::bpf),
    step("unsafe", "unsafe only in its two places", BUILD, unsafe_code::check),
    step("clippy", "clippy, for every feature set", BUILD, style::clippy),
    step("doc", "documentation", BUILD, style::doc),
    step("no-native", "library without native libraries", &[], package::without_native_libraries),
    step("unit", "unit and doc tests", BUILD, suites::unit),
    step("no-features", "unit tests, features off", &[], suites::no_features),
    step("harness", "VM harness: lints and unit tests", &[], suites::harness),
    step("kit", "test kit, the oracle of the rest", SUITE, suites::kit),
    step("integration", "integration tests", SUITE, suites::integration),
    step("bench", "benchmarks build", BUILD, suites::bench),
    step("asan", "AddressSanitizer", SUITE, sanitize::address),
    step("package", "package builds by itself", BUILD, package::package),
    step("licences", "licences and sources", &[], deps::licences),
    step("advisories", "advisory database", &[], deps::advisories),
    step("miri", "Miri", &[], sanitize::miri),
    step("msrv", "build with the oldest Rust", BUILD, suites::msrv),
];

/// The names that `--step` takes.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    STEPS.iter().map(|step| step.name)
}

/// Runs the named steps, or all; says whether none failed.
pub(crate) fn test(only: &[String]) -> bool {
    let chosen = |step: &&Step| only.is_empty() || only.iter().any(|name| name == step.name);
    let steps: Vec<&Step> = STEPS.iter().filter(chosen).collect();

    println!("{}", system::describe());
    let mut report = Report::default();
    report.take("Packages that the steps need", || {
        let needs = steps.iter().flat_map(|step| step.needs.iter().copied());
        system::ensure(needs.flatten()).map(|()| Passed)
    });
    for step in steps {
        report.take(step.title, step.run);
    }
    report.sum_up()
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
        let seconds = start.elapsed().as_secs_f64();
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
        self.lines
            .push(format!("{title:<34} {seconds:>7.1} s  {word}"));
    }

    /// Prints the summary; its last line is the count.
    fn sum_up(self) -> bool {
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
        println!("\n{passed} passed, {failed} failed, {not_run} skipped");
        failed == 0
    }
}
