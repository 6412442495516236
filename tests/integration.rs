//! The integration tests. What they test is in `suite/`, one file a topic.
//!
//! They need root, and say so. `cargo test` builds what they start; with
//! `--test integration`, these come first:
//! `cargo build --examples` and `cargo build -p uring-testkit -p uring-tools --bins`.
#![forbid(unsafe_code)]

mod suite;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    if let Some(mode) = suite::inner::mode() {
        return suite::inner::run(&mode);
    }
    let mut args = Arguments::from_args();
    // One more than there are CPUs: one trial sleeps for two minutes.
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    args.test_threads.get_or_insert(cpus + 1);
    let conclusion = libtest_mimic::run(&args, suite::trials());
    suite::finish();
    conclusion.exit_code()
}
