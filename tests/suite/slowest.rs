//! How long trials took: where the minutes of a run are.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// So many are printed.
const SHOWN: usize = 10;

static TIMES: Mutex<BTreeMap<String, Duration>> = Mutex::new(BTreeMap::new());

fn times() -> MutexGuard<'static, BTreeMap<String, Duration>> {
    TIMES.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn note(trial: &str, took: Duration) {
    times().insert(trial.to_owned(), took);
}

/// The seconds of each trial that has ended.
pub(super) fn seconds() -> BTreeMap<String, f64> {
    let times = times();
    let seconds = times.iter().map(|(trial, took)| {
        let tenths = (took.as_secs_f64() * 10.0).round();
        (trial.clone(), tenths / 10.0)
    });
    seconds.collect()
}

/// Prints the slowest ones, the slowest first, after the results.
pub(super) fn print() {
    let times = times();
    let mut list: Vec<_> = times.iter().map(|(trial, took)| (took, trial)).collect();
    list.sort_by(|one, other| other.cmp(one));
    for (took, trial) in list.into_iter().take(SHOWN) {
        println!("took {:>5.1} s: {trial}", took.as_secs_f64());
    }
}
