//! Steps with kernels of our own: built, and booted in virtual machines, where the
//! integration tests run as they do on the host.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context as _, Result};

use super::beside::Log;
use crate::kernel::Flavour;
use crate::run::{cmd, line, Cmd};
use crate::workspace;

/// The series whose kernels are tested.
const SERIES: &str = "6.12";

/// Only with what the other steps leave, and not for ever: an hour is twice what
/// both take on two cores.
const BUILDING: &str = "timeout --verbose --kill-after=10 3600 nice -n 19";

/// What a machine is given.
struct Machine {
    flavour: Flavour,
    /// As QEMU takes it; the host gives only what is used.
    memory: &'static str,
    /// Seconds for boot and tests.
    limit: u32,
    /// Seconds that each stress of the suite takes.
    stress: u32,
}

/// Every trial: how a kernel without checks behaves, at its speed.
const PLAIN: Machine = Machine {
    flavour: Flavour::Plain,
    // A trial that registers a gibibyte wants three to be free.
    memory: "4G",
    limit: 1800,
    stress: 10,
};

/// Trials that walk the kernel's own iterators, where it checks itself.
const DEBUG: Machine = Machine {
    flavour: Flavour::Debug,
    // KASAN takes an eighth, and its quarantine as much again.
    memory: "3G",
    limit: 2400,
    stress: 60,
};

/// Builds the kernels, or finds them in the cache.
pub(super) fn kernels(log: &Log) -> Result<()> {
    for Machine { flavour, .. } in [PLAIN, DEBUG] {
        let build = line(BUILDING)
            .arg(xtask()?)
            .args(["kernel", "build", SERIES]);
        log.run(build.args(["--flavour", flavour.name()]))?;
    }
    Ok(())
}

/// The harness itself: without this, a step that cannot fail would pass.
pub(super) fn harness(log: &Log) -> Result<()> {
    let boot = || -> Result<Cmd> { Ok(cmd([xtask()?]).args(["vm", "--kernel", SERIES])) };
    log.say("a command's own exit status is the run's:")?;
    log.expect(7, boot()?.args(["--", "exit 7"]))?;
    log.say("a warning in the kernel's log fails the run:")?;
    let warn = "echo 'WARNING: made up by a test of the harness' >/dev/kmsg";
    log.expect(123, boot()?.args(["--", warn]))?;
    log.say("so does no end in time:")?;
    log.expect(124, boot()?.args(["--limit", "5", "--", "sleep 60"]))
}

/// The whole suite.
pub(super) fn plain(log: &Log) -> Result<()> {
    suite(log, &PLAIN, None)
}

/// What talks to the patches. The rest says nothing of them, and there are no
/// minutes for it: an emulated kernel that checks itself is slow.
pub(super) fn debug(log: &Log) -> Result<()> {
    suite(log, &DEBUG, Some("native_"))
}

/// Runs all trials, or those whose names contain a text, in one boot.
fn suite(log: &Log, machine: &Machine, filter: Option<&str>) -> Result<()> {
    log.run(line("cargo build -p uring-testkit --bins"))?;
    log.run(line("cargo build --examples"))?;
    log.run(line("cargo test --test integration --no-run"))?;
    let program = workspace::test_program("integration")?;
    let listed = cmd([&program]).arg("--list").args(filter).read()?;
    if listed.trim().is_empty() {
        bail!("no trial is to run: {filter:?}");
    }
    let boot = cmd([xtask()?])
        .args(["vm", "--kernel", SERIES])
        .args(["--flavour", machine.flavour.name()])
        .args(["--memory", machine.memory])
        .args(["--limit", &machine.limit.to_string()])
        .arg("--")
        .arg(&program)
        .args(filter)
        // The guest's command has this one's environment.
        .env("URING_SUITE_NATIVE", "1")
        .env("URING_SUITE_STRESS", machine.stress.to_string())
        // Whose file and line cost seconds each: the guest reads them slowly.
        .env("RUST_BACKTRACE", "0");
    log.run(boot)
}

/// This program: not by cargo, which would wait for what the other steps compile.
fn xtask() -> Result<PathBuf> {
    let program = env::current_exe().context("no path of this program")?;
    let root = workspace::root()?;
    Ok(program
        .strip_prefix(root)
        .map_or(program.clone(), Path::to_owned))
}
