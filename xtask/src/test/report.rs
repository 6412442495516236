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
}

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
        let seconds = took.as_secs_f64();
        self.lines
            .push(format!("{title:<34} {seconds:>7.1} s  {word}"));
    }

    /// Prints the summary; its last line is the count.
    pub(super) fn sum_up(self, took: Duration) -> bool {
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
