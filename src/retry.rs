//! How long, and how often, to try for a consistent view.

use std::fmt;
use std::time::{Duration, Instant};

use crate::error::{Error, Missed, Result};

/// The bounds of trying for a consistent view: the pause between attempts doubles
/// from `first_pause` to `longest_pause`, and trying ends with `attempts` or with
/// `deadline`, whichever comes first. No pause is shorter than 10 µs: a ring that
/// is read in a tight loop loses up to 60% of its speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Retry {
    /// The most attempts, at least 1.
    pub attempts: u32,
    /// The time after which no further attempt begins.
    pub deadline: Duration,
    /// The pause after the first attempt.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

/// The least pause, however short those that were asked for.
const SHORTEST_PAUSE: Duration = Duration::from_micros(10);

impl Default for Retry {
    /// At most 1,000 attempts in one second, with pauses of 20 µs to 2 ms.
    fn default() -> Self {
        Self {
            attempts: 1000,
            deadline: Duration::from_secs(1),
            first_pause: Duration::from_micros(20),
            longest_pause: Duration::from_millis(2),
        }
    }
}

impl Retry {
    /// One attempt, no pause.
    pub fn once() -> Self {
        Self {
            attempts: 1,
            ..Self::default()
        }
    }

    /// Runs `attempt` until it succeeds, fails, or has met contention for as
    /// long as is allowed: the result, and the number of attempts.
    pub(crate) fn run<T>(
        &self,
        what: impl fmt::Display,
        mut attempt: impl FnMut() -> Result<T, Missed>,
    ) -> Result<(T, u32)> {
        let start = Instant::now();
        let mut pause = self.first_pause;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let why = match attempt() {
                Ok(value) => return Ok((value, attempts)),
                Err(Missed::Failed(error)) => return Err(error),
                Err(Missed::Busy(why)) => why,
            };
            let elapsed = start.elapsed();
            if attempts >= self.attempts || elapsed.saturating_add(pause) > self.deadline {
                return Err(Error::Contended {
                    what: what.to_string(),
                    why,
                    attempts,
                    elapsed,
                });
            }
            std::thread::sleep(pause.max(SHORTEST_PAUSE));
            pause = pause.saturating_mul(2).min(self.longest_pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Contention;

    #[test]
    fn retry_counts_and_gives_up() {
        let retry = Retry {
            attempts: 3,
            ..Retry::default()
        };
        let mut calls = 0;
        let error = retry
            .run::<()>("ring 7", || {
                calls += 1;
                Err(Missed::Busy(Contention::Changed))
            })
            .unwrap_err();
        assert!(error.is_retryable());
        assert_eq!(calls, 3);
        assert!(
            matches!(error, Error::Contended { attempts: 3, .. }),
            "{error}"
        );
    }

    #[test]
    fn retry_keeps_its_deadline() {
        let retry = Retry {
            attempts: u32::MAX,
            deadline: Duration::from_millis(20),
            ..Retry::default()
        };
        let start = Instant::now();
        let error = retry
            .run::<()>("ring 7", || Err(Missed::Busy(Contention::Changed)))
            .unwrap_err();
        assert!(error.is_retryable());
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn other_errors_end_it_at_once() {
        let mut calls = 0;
        let error = Retry::default()
            .run::<()>("ring 7", || {
                calls += 1;
                Err(Error::malformed("a test", "it").into())
            })
            .unwrap_err();
        assert!(!error.is_retryable());
        assert_eq!(calls, 1);
    }
}
