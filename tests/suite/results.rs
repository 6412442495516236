//! How each trial ended. What this machine lacks is told by name and reason: a skip
//! is no pass. What `cargo xtask` reads of it goes to a file.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{env, fs};

use libtest_mimic::Completion;

use super::Outcome;

/// The variable that names the file for the results.
pub(super) const FILE: &str = "URING_SUITE_RESULTS";

#[derive(serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Ended {
    Ok,
    Failed,
    Skipped(String),
}

static RESULTS: Mutex<BTreeMap<String, Ended>> = Mutex::new(BTreeMap::new());

fn results() -> MutexGuard<'static, BTreeMap<String, Ended>> {
    RESULTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends a trial that cannot run here.
pub(crate) fn skip(reason: impl ToString) -> Outcome {
    Ok(Completion::ignored_with(reason))
}

/// Notes how a trial ends; what panics has failed.
pub(super) fn note(trial: &str, body: impl FnOnce() -> Outcome) -> Outcome {
    results().insert(trial.to_owned(), Ended::Failed);
    let outcome = body();
    let ended = match &outcome {
        Ok(Completion::Completed) => Ended::Ok,
        Ok(Completion::Ignored { reason }) => {
            Ended::Skipped(reason.clone().unwrap_or("no reason given".into()))
        }
        Err(_) => Ended::Failed,
    };
    results().insert(trial.to_owned(), ended);
    outcome
}

/// Takes back what was noted of a trial that has not ended.
pub(super) fn forget(trial: &str) {
    results().remove(trial);
}

/// Prints what was skipped, after the results, and writes the file if one is asked for.
pub(super) fn report() {
    let results = results();
    for (trial, ended) in &*results {
        if let Ended::Skipped(reason) = ended {
            println!("NOT TESTED {trial}: {reason}");
        }
    }
    if let Some(file) = env::var_os(FILE) {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
        let all = serde_json::json!({
            "kernel": kernel.trim(),
            "trials": &*results,
            "seconds": super::slowest::seconds(),
        });
        fs::write(file, format!("{all:#}\n")).expect("the file of the results");
    }
}
