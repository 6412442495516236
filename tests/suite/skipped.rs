//! What this machine lacks, by name and reason: a skip is no pass.

use std::sync::{Mutex, PoisonError};

use libtest_mimic::Completion;

use super::Outcome;

static SKIPPED: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// Ends a trial that cannot run here.
pub(crate) fn skip(reason: impl ToString) -> Outcome {
    Ok(Completion::ignored_with(reason))
}

pub(super) fn note(trial: &str, reason: &str) {
    let mut list = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    list.push((trial.to_owned(), reason.to_owned()));
}

/// Prints the list, after the results.
pub(crate) fn print() {
    let list = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    for (trial, reason) in &*list {
        println!("NOT TESTED {trial}: {reason}");
    }
}
