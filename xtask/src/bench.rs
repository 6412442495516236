//! `cargo xtask bench`: the benchmarks on this kernel, and on one with the patches,
//! where the native iterators are; and the reports of both.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{bail, Context as _, Result};
use xtask_base::run::{cmd, heading, line};
use xtask_base::{system, workspace, Flavour, VMLINUX};

use crate::kernel;
use crate::vm::{self, Vm};

/// What criterion is told in a machine whose processor is likely emulated.
const SHORT: &str = "--warm-up-time 0.5 --measurement-time 2 --sample-size 10";

/// From PyPI.
const DRGN: &str = "drgn==0.3.0";

/// Where to run, and what.
#[derive(clap::Args)]
pub(crate) struct Bench {
    /// The series whose kernel has the native iterators.
    #[arg(long, value_name = "SERIES", default_value = "6.12")]
    kernel: String,
    /// In that kernel's virtual machine alone.
    #[arg(long)]
    guest_only: bool,
    /// Only what has this in its name, a regular expression.
    filter: Option<String>,
}

/// Runs both and shows what was written.
pub(crate) fn bench(bench: &Bench) -> Result<()> {
    system::ensure(system::BUILD.iter().chain(system::DRGN))?;
    let start = SystemTime::now();
    // It is measured as well.
    line("cargo build --release -p uring-tools").run()?;
    let program = workspace::bench_program("peers")?;
    if !bench.guest_only {
        heading("Benchmarks, this kernel");
        line("cargo bench --bench peers --")
            .args(&bench.filter)
            .run()?;
    }
    heading(&format!("Benchmarks, {} with the patches", bench.kernel));
    let image = kernel::build(&bench.kernel, Flavour::Kcore)?;
    let vmlinux = image.with_file_name(VMLINUX);
    let measure = cmd([program]).arg("--bench").args(SHORT.split(' '));
    // The guest's own folder is memory: criterion writes many files.
    let script = format!(
        "CRITERION_HOME=$TMPDIR/criterion {}",
        measure
            .env("URING_BENCH_DRGN_PYTHON", drgn()?)
            .env("URING_BENCH_VMLINUX", vmlinux)
            .args(&bench.filter)
            .shown()
    );
    let vm = Vm::new(&image, Flavour::Kcore, 3000, script).with_memory("4G");
    let status = vm::vm(&vm)?;
    for report in written_since(start)? {
        heading(&format!("Report: {}", report.display()));
        println!("{}", fs::read_to_string(&report)?);
    }
    match status {
        0 => Ok(()),
        status => bail!("the virtual machine's exit status is {status}"),
    }
}

/// The Python of an environment that has drgn, made if it is not there yet.
fn drgn() -> Result<PathBuf> {
    let home = workspace::cache_dir()?.join("tools").join(DRGN);
    let python = home.join("bin/python3");
    if !cmd([&python]).args(["-c", "import drgn"]).succeeds() {
        cmd(["python3", "-m", "venv", "--clear"]).arg(&home).run()?;
        cmd([&python])
            .args(["-m", "pip", "install", "--quiet", DRGN])
            .run()?;
    }
    Ok(python)
}

fn written_since(start: SystemTime) -> Result<Vec<PathBuf>> {
    let folder = workspace::target_dir()?.join("bench");
    let mut reports = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("no {}", folder.display()))? {
        let entry = entry?;
        let is_report = entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "md");
        if is_report && entry.metadata()?.modified()? >= start {
            reports.push(entry.path());
        }
    }
    reports.sort();
    Ok(reports)
}
