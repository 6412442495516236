//! The commands of `cargo xtask` that build, check or boot kernels. `cargo xtask`
//! compiles this when one of them is asked for, and hands the words on.

mod apt;
mod cache;
mod check;
mod compare;
mod config;
mod faults;
mod image;
mod liburing;
mod lint;
mod make;
mod patches;
mod soak;
mod source;
mod view;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use xtask_base::{workspace, Flavour};

use check::Column;
use image::Change;
use liburing::Liburing;
use soak::Soak;
use vm::Vm;

/// The commands of this repository that need kernels.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
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
    /// A program that ends differently is run six times more on both. Fails if a program
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
        /// With this patch on top of the others.
        #[arg(long, value_name = "PATCH", conflicts_with = "unpatched")]
        with: Option<PathBuf>,
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
    /// Print the file that `build` would give, and build nothing.
    Path {
        /// A series that kernel/sources names.
        series: String,
        #[arg(long, value_enum, default_value = "plain")]
        flavour: Flavour,
    },
    /// Print the series that kernel/sources names, one a line.
    Series,
}

fn main() -> ExitCode {
    let command = Command::parse();
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
fn run(command: Command) -> Result<ExitCode> {
    let well = match command {
        Command::Kernel(kernel) => kernel.run()?,
        Command::Soak(soak) => soak::soak(&soak).map(|()| true)?,
        Command::Liburing(liburing) => liburing::liburing(&liburing)?,
        Command::Vm(vm) => return Ok(ExitCode::from(vm::vm(&vm)?)),
    };
    // Where it did not go well, what was printed says why.
    Ok(ExitCode::from(u8::from(!well)))
}

impl Kernel {
    /// Says whether all was well.
    fn run(self) -> Result<bool> {
        match self {
            Self::Build {
                series,
                flavour,
                unpatched,
                with,
            } => {
                let change = match &with {
                    Some(patch) => Change::Further(patch),
                    None if unpatched => Change::None,
                    None => Change::Series,
                };
                println!("{}", image::image(&series, flavour, change)?.display());
            }
            Self::Check { series, only, from } => return check::check(&series, &only, from),
            Self::Compare { record } => return compare::compare(record),
            Self::Faults {
                series,
                only,
                runner,
            } => return faults::faults(&series, &only, runner.as_deref()),
            Self::Path { series, flavour } => {
                println!("{}", image::path(&series, flavour)?.display());
            }
            Self::Series => {
                for series in source::series()? {
                    println!("{series}");
                }
            }
        }
        Ok(true)
    }
}
