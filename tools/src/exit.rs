//! How a run ends: what stops it early, and the exit codes.

use std::io;

use uring_bpf_iter::{Error, Unseen, UnseenReason};

/// Exit codes other than 0, and 2 for wrong usage.
pub(crate) const FAILED: u8 = 1;
const NOT_PERMITTED: u8 = 3;
const BUSY: u8 = 4;

/// The exit codes for `--help`; README.md has the same table.
pub(crate) const CODES: &str = "\
Exit codes: 0 done, also when there was nothing to show; 1 failed (there is no
such process or descriptor, the descriptor is something else, or the ring or
set is gone); 2 wrong usage; 3 not permitted (epoll: also to look at one of the
processes), or the backend or the option does not work here; 4 too busy for a consistent read (try again, or use --raw).";

/// The reason why a run ends early.
pub(crate) enum Stop {
    Failed(Error),
    Io(io::Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The exit code for a process that could not be searched in full.
pub(crate) fn code_of_unseen(unseen: &Unseen) -> u8 {
    match unseen.why {
        UnseenReason::NotPermitted => NOT_PERMITTED,
        _ => BUSY,
    }
}

/// The exit code for an error.
pub(crate) fn code_of(error: &Error) -> u8 {
    match error {
        Error::NoBackend { .. } | Error::NotPermitted { .. } | Error::Unsupported { .. } => {
            NOT_PERMITTED
        }
        error if error.is_retryable() => BUSY,
        _ => FAILED,
    }
}
