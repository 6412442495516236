//! `cargo xtask`: the few commands that a person types in this repository.
//! Only the command line is here; each command has a module of its own.
#![forbid(unsafe_code)]

mod bench;
mod bpf;
mod demo;
mod kernel;
mod liburing;
mod matrix;
mod results;
mod run;
mod soak;
mod system;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use bench::Bench;
use kernel::{Column, Flavour};
use liburing::Liburing;
use soak::Soak;
use vm::Vm;

/// The commands of this repository.
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
    /// Build the BPF objects that are committed in bpf/.
    Bpf {
        /// Build elsewhere and compare, byte for byte.
        #[arg(long)]
        check: bool,
    },
    /// Build kernels from Debian's sources and the patches in kernel/.
    #[command(subcommand)]
    Kernel(Kernel),
    /// Run a command as root in a virtual machine with a kernel of ours.
    ///
    /// The guest has the host's root file system, writable, and the same current
    /// folder; $TMPDIR is a tmpfs. The command's output and exit status are this
    /// command's. It is 123 when the kernel's log holds a warning or worse, or
    /// lockdep went off; 124 when the time is up; 125 when the machine fails.
    Vm(Vm),
    /// Run the stress of the test suite for minutes, and sum up what happened.
    ///
    /// On a kernel of flavour debug, with allocations that fail, and a line every
    /// minute. Fails if the kernel's log holds a warning, an answer was none of
    /// those that are allowed, or anything was left: a pinned page, an object that
    /// kmemleak finds.
    Soak(Soak),
    /// Run liburing's own test programs on a kernel with the patches and on one
    /// without, and compare.
    ///
    /// What does not end alike is run three times more on both. Fails if a program
    /// passes without the patches only. Takes half an hour where machines are
    /// emulated.
    Liburing(Liburing),
}

#[derive(clap::Subcommand)]
enum Kernel {
    /// Build a kernel, unless it is in the cache; the last line is its image.
    ///
    /// From nothing it takes 10 to 30 minutes on two cores, and 5 GB of
    /// ~/.cache/uring-bpf-iter/kernels.
    Build {
        /// A series that kernel/sources names.
        series: String,
        #[arg(long, value_enum, default_value = "plain")]
        flavour: Flavour,
        /// Without the patches, to compare with.
        #[arg(long)]
        unpatched: bool,
    },
    /// Check that each patch by itself builds and is clean, in four configurations.
    ///
    /// Takes an hour and more on two cores; no part of `cargo xtask test`.
    Check {
        /// A series that kernel/sources names.
        series: String,
        /// Check this column only; may be repeated.
        #[arg(long, value_enum, value_name = "COLUMN")]
        only: Vec<Column>,
        /// Begin with this patch: those before it are applied and not checked.
        #[arg(long, default_value_t = 1, value_name = "NUMBER")]
        from: usize,
    },
    /// Compare the series of patches with that of 6.12, and with what is recorded of it.
    ///
    /// Fails on a difference that is not in kernel/SERIES/from-6.12.diff.
    Compare {
        /// Record the differences as those that are meant.
        #[arg(long)]
        record: bool,
    },
    /// Put faults into the patches, one by one, and see a test fail for each.
    ///
    /// Builds a kernel for each patch in kernel/SERIES/faults, and boots it. Fails
    /// if a fault is not caught. No part of `cargo xtask test`.
    Faults {
        /// A series that kernel/sources names.
        series: String,
        /// This fault only; may be repeated.
        #[arg(long, value_name = "NAME")]
        only: Vec<String>,
        /// Run the kernel selftest that a fault names, by this command and its name,
        /// in place of the crate's own trial.
        #[arg(long, value_name = "COMMAND")]
        runner: Option<String>,
    },
}

fn main() -> ExitCode {
    let command = Xtask::parse();
    let result = workspace::enter().and_then(|()| run(command));
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
        Xtask::Bpf { check: false } => bpf::build().map(|()| true)?,
        Xtask::Bpf { check: true } => bpf::check().map(|()| true)?,
        Xtask::Kernel(Kernel::Build {
            series,
            flavour,
            unpatched,
        }) => {
            let build = match unpatched {
                true => kernel::build_unpatched,
                false => kernel::build,
            };
            println!("{}", build(&series, flavour)?.display());
            true
        }
        Xtask::Kernel(Kernel::Check { series, only, from }) => kernel::check(&series, &only, from)?,
        Xtask::Kernel(Kernel::Compare { record }) => kernel::compare(record)?,
        Xtask::Kernel(Kernel::Faults {
            series,
            only,
            runner,
        }) => kernel::faults(&series, &only, runner.as_deref())?,
        Xtask::Soak(soak) => soak::soak(&soak).map(|()| true)?,
        Xtask::Liburing(liburing) => liburing::liburing(&liburing)?,
        Xtask::Vm(vm) => return Ok(ExitCode::from(vm::vm(&vm)?)),
    };
    // Where it did not go well, what was printed says why.
    Ok(ExitCode::from(u8::from(!well)))
}
