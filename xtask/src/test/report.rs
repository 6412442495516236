//! How the steps went: a line for each, and the summary at the end.

use std::time::{Duration, Instant};

use anyhow::Result;
use xtask_base::run::heading;

use super::Outcome::{self, NotRun, Passed};

/// The lines of the summary, and their count.
#[derive(Default)]
pub(super) struct Report {
    lines: Vec<String>,
    passed: usize,
    failed: usize,
    not_run: Vec<String>,
    /// How long each step took.
    times: Vec<(Duration, String)>,
}

/// A trial of the integration tests: seconds, the machine, its name.
type Trial = (f64, String, String);

/// So many of the slowest steps are named.
const SLOWEST: usize = 5;

impl Report {
    /// Runs one step and notes how it went.
    pub(super) fn take(&mut self, title: &str, run: impl FnOnce() -> Result<Outcome>) {
        heading(title);
        let start = Instant::now();
        let outcome = run();
        self.note(title, start.elapsed(), outcome);
    }

    /// Notes how a step went.
    pub(super) fn note(&mut self, title: &str, took: Duration, outcome: Result<Outcome>) {
        let word = match outcome {
            Ok(Passed) => {
                self.passed += 1;
                "ok"
            }
            Ok(NotRun(reason)) => {
                println!("NOT RUN: {reason}");
                self.not_run.push(format!("NOT RUN {title}: {reason}"));
                "not run"
            }
            Err(error) => {
                self.failed += 1;
                println!("FAILED: {error:#}");
                "FAILED"
            }
        };
        self.times.push((took, title.to_owned()));
        let seconds = took.as_secs_f64();
        self.lines
            .push(format!("{title:<34} {seconds:>7.1} s  {word}"));
    }

    /// Prints the summary; its last line is the count.
    pub(super) fn sum_up(mut self, took: Duration, trials: &[Trial]) -> bool {
        heading("Summary");
        for line in &self.lines {
            println!("{line}");
        }
        if !self.not_run.is_empty() {
            println!();
        }
        for line in &self.not_run {
            println!("{line}");
        }
        println!("\nthe slowest steps:");
        self.times.sort_by(|one, other| other.cmp(one));
        for (took, title) in self.times.iter().take(SLOWEST) {
            println!("{:>9.1} s  {title}", took.as_secs_f64());
        }
        if !trials.is_empty() {
            println!("\nthe slowest trials:");
        }
        for (seconds, machine, trial) in trials {
            println!("{seconds:>9.1} s  {machine:<12} {trial}");
        }
        let minutes = took.as_secs_f64() / 60.0;
        println!("\neverything took {minutes:.1} minutes");
        println!(
            "{} passed, {} failed, {} skipped",
            self.passed,
            self.failed,
            self.not_run.len()
        );
        self.failed == 0
    }
}
