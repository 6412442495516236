//! `cargo xtask`: the few commands that a person types in this repository.
//! Only the command line is here; each command has a module of its own, or is one of
//! the package in xtask/kernel.

mod api;
mod bench;
mod bpf;
mod demo;
mod kernel;
mod matrix;
mod results;
mod scratch;
mod test;
mod tools;
mod vm;

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{bail, Result};
use clap::Parser;
use xtask_base::{run, system, workspace};

use api::Compared;
use bench::Bench;

/// The commands of this repository.
///
/// `cargo xtask COMMAND --help` says more of each.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Xtask {
    /// Show the crate at work on a program with known io_uring instances.
    ///
    /// Installs the build packages that the machine lacks, builds the examples
    /// and points them at a workload. Works without privilege too, with less to see.
    Demo {
        /// Do it in a virtual machine with this series' kernel, which is built if it
        /// is not in the cache: the native iterators at work.
        #[arg(long, value_name = "SERIES")]
        kernel: Option<String>,
        /// Run in that machine, where all is built.
        #[arg(long, hide = true, conflicts_with = "kernel")]
        in_guest: bool,
    },
    /// Run every check and every test, and sum up at the end.
    ///
    /// A failed step does not stop the rest. Needs root for the tests that load BPF.
    /// With all kernels in the cache it ends within 75 minutes on two cores: what takes
    /// longer is in soak, liburing, and kernel check and faults.
    Test(test::Choice),
    /// Measure, on this kernel and on one with the patches, and show both reports.
    ///
    /// As root, on a quiet machine. Reports and plots are in target/bench, named after
    /// the kernel that they are of.
    Bench(Bench),
    /// Show what the last runs of the tests say of kernels, backends and features.
    ///
    /// Each cell rests on trials that ran: tests/features says on which.
    Matrix {
        /// Put the table into README.md.
        #[arg(long)]
        write: bool,
    },
    /// Write the public API of the library to tests/api.txt.
    ///
    /// `cargo xtask test` compares it, so that each change of the API is seen in git.
    Api {
        /// Compare only.
        #[arg(long)]
        check: bool,
    },
    /// Build the BPF objects that are committed in bpf/.
    Bpf {
        /// Build elsewhere and compare, byte for byte.
        #[arg(long)]
        check: bool,
    },
    /// Build kernels from Debian's sources and the patches in kernel/.
    Kernel,
    /// Run a command as root in a virtual machine with a kernel of ours.
    Vm,
    /// Run the stress of the test suite for minutes, and sum up what happened.
    Soak,
    /// Run liburing's own test programs on a kernel with the patches and on one
    /// without, and compare.
    Liburing,
}

fn main() -> ExitCode {
    let words: Vec<OsString> = env::args_os().skip(1).collect();
    let result = kernel::take_over(&words).and_then(|()| {
        let command = Xtask::parse();
        workspace::enter()?;
        run(command)
    });
    match result {
        Ok(status) => status,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command; an error has not been shown yet.
fn run(command: Xtask) -> Result<ExitCode> {
    let well = match command {
        Xtask::Demo { in_guest: true, .. } => demo::native().map(|()| true)?,
        Xtask::Demo { kernel: None, .. } => demo::demo().map(|()| true)?,
        Xtask::Demo {
            kernel: Some(series),
            ..
        } => return Ok(ExitCode::from(demo::in_guest(&series)?)),
        Xtask::Test(choice) => test::test(&choice)?,
        Xtask::Bench(bench) => bench::bench(&bench).map(|()| true)?,
        Xtask::Matrix { write } => matrix::matrix(write)?,
        Xtask::Api { check: false } => api::accept().map(|()| true)?,
        Xtask::Api { check: true } => match api::compare()? {
            Compared::Same => true,
            Compared::NotMade(why) => bail!("not compared: {why}"),
            Compared::Different(how) => bail!(how),
        },
        Xtask::Bpf { check: false } => bpf::build().map(|()| true)?,
        Xtask::Bpf { check: true } => bpf::check().map(|()| true)?,
        Xtask::Kernel | Xtask::Vm | Xtask::Soak | Xtask::Liburing => {
            unreachable!("handed on before the words were looked at")
        }
    };
    // Where it did not go well, what was printed says why.
    Ok(ExitCode::from(u8::from(!well)))
}
