//! `cargo xtask`: the few commands that a person types in this repository.
//! Only the command line is here; each command has a module of its own.
#![forbid(unsafe_code)]

mod bpf;
mod demo;
mod run;
mod system;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::Parser;

/// The commands of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Xtask {
    /// Show the crate at work on a program with known io_uring instances.
    ///
    /// Installs the build packages that the machine lacks, builds the examples
    /// and points them at a workload. Works without privilege too, with less to see.
    Demo,
    /// Run every check and every test, and sum up at the end.
    ///
    /// A failed step does not stop the rest. Needs root for the tests that load BPF.
    Test {
        /// Use no kernel but the one that is running (no step uses another).
        #[arg(long)]
        host_only: bool,
        /// Run this step only; may be repeated.
        #[arg(long = "step", value_name = "NAME", value_parser = PossibleValuesParser::new(test::names()))]
        steps: Vec<String>,
    },
    /// Build the BPF objects that are committed in bpf/.
    Bpf {
        /// Build elsewhere and compare, byte for byte.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let command = Xtask::parse();
    let result = workspace::enter().and_then(|()| match command {
        Xtask::Demo => demo::demo().map(|()| true),
        Xtask::Test {
            host_only: _,
            steps,
        } => Ok(test::test(&steps)),
        Xtask::Bpf { check: false } => bpf::build().map(|()| true),
        Xtask::Bpf { check: true } => bpf::check().map(|()| true),
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        // The summary has said why, and its count stays the last line.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
