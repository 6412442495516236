//! How long trials took: where the minutes of a run are.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What is worth a line.
const LONG: Duration = Duration::from_secs(5);

static LONG_ONES: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

pub(super) fn note(trial: &str, took: Duration) {
    if took >= LONG {
        let mut list = LONG_ONES.lock().unwrap_or_else(PoisonError::into_inner);
        list.push((took, trial.to_owned()));
    }
}

/// Prints the long ones, the longest first, after the results.
pub(crate) fn print() {
    let mut list = LONG_ONES.lock().unwrap_or_else(PoisonError::into_inner);
    list.sort_by(|one, other| other.cmp(one));
    for (took, trial) in &*list {
        println!("took {:>5.1} s: {trial}", took.as_secs_f64());
    }
}
