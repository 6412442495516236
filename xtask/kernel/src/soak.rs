//! `cargo xtask soak`: the stress of the test suite for minutes, with allocations
//! that fail, on a kernel that checks itself.

use std::path::PathBuf;

use anyhow::{bail, Result};
use xtask_base::run::{heading, line};
use xtask_base::workspace;
use xtask_base::Flavour;

use crate::image;
use crate::vm::{self, Vm};

/// Seconds for the boot and for kmemleak's scans, which take a quarter of an hour
/// where an emulated machine is given little of a busy one.
const AROUND: u32 = 3600;

/// What to soak, and for how long.
#[derive(clap::Args)]
pub(crate) struct Soak {
    /// Minutes of stress; boot and the look for leaks come on top.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    minutes: u32,
    /// A series that kernel/sources names.
    #[arg(long, value_name = "SERIES", default_value = "6.12")]
    kernel: String,
    /// A kernel of flavour debug in its place: one with a fault.
    #[arg(long, value_name = "BZIMAGE", value_parser = vm::absolute)]
    image: Option<PathBuf>,
}

/// Runs it; an error says what was wrong.
pub(crate) fn soak(soak: &Soak) -> Result<()> {
    let Soak { minutes, .. } = soak;
    let image = match &soak.image {
        Some(image) => image.clone(),
        None => image::build(&soak.kernel, Flavour::Debug)?,
    };
    line("cargo test --test integration --no-run").run()?;
    let program = workspace::test_program("integration")?;
    heading(&format!("{minutes} minutes of stress"));
    let seconds = minutes * 60;
    let script = format!(
        "URING_SUITE_INNER=soak URING_SUITE_STRESS={seconds} RUST_BACKTRACE=0 exec '{}'",
        program.display()
    );
    let status = vm::vm(&Vm::new(&image, Flavour::Debug, seconds + AROUND, script))?;
    match i32::from(status) {
        0 => println!("           0 splats; lockdep on to the end"),
        vm::SPLAT => bail!("the kernel's log holds a splat, or lockdep went off: see above"),
        vm::TIME => bail!("it did not end in time"),
        _ => bail!("exit status {status}: what was wrong is above"),
    }
    println!("\nthe kernel has stood it");
    Ok(())
}
