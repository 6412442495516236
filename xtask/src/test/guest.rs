//! Steps with kernels of our own: built, and booted in virtual machines, where the
//! integration tests run as they do on the host.

use std::time::{Duration, Instant};

use anyhow::{bail, Context as _, Result};
use xtask_base::run::{cmd, line, Cmd};
use xtask_base::system::{self, Need};
use xtask_base::{workspace, Flavour};

use super::beside::Log;
use super::Outcome::{self, NotRun, Passed};
use super::{skips, step, suites, Run::Beside, Step, BUDGET};
use crate::{kernel, results};

/// The series whose kernels are always tested.
pub(super) const SERIES: &str = "6.12";

/// Only with what the other steps leave, and not for ever: an hour is twice what
/// both take on two cores.
const BUILDING: &str = "timeout --verbose --kill-after=10 3600 nice -n 19";

/// What the integration tests need in a virtual machine.
const GUEST: &[&[Need]] = &[system::BUILD, system::SUITE, system::KERNEL, system::VM];

/// What a machine is given.
#[derive(Clone, Copy)]
struct Machine {
    flavour: Flavour,
    /// As QEMU takes it; the host gives only what is used.
    memory: &'static str,
    /// Seconds for boot and tests.
    limit: u64,
    /// Seconds that each stress of the suite takes.
    stress: u32,
    /// How many times as long as on a real machine a trial may take.
    slow: u32,
    /// Only trials whose names contain this.
    filter: Option<&'static str>,
}

/// Every trial: how a kernel without checks behaves, at its speed.
const PLAIN: Machine = Machine {
    flavour: Flavour::Plain,
    // A trial that registers a gibibyte wants three to be free.
    memory: "4G",
    limit: 1800,
    stress: 10,
    slow: 4,
    filter: None,
};

/// Trials that walk the kernel's own iterators, where it checks itself. The rest says
/// nothing of them, and there are no minutes for it: such a kernel, emulated, is slow.
/// Nor for those of `epoll_torn`, which go on until chance has shown enough; the sets
/// that change here are those of `native_stress` and `native_epoll`.
const DEBUG: Machine = Machine {
    flavour: Flavour::Debug,
    // KASAN takes an eighth, and its quarantine as much again.
    memory: "3G",
    limit: 2400,
    stress: 60,
    slow: 8,
    filter: Some("native_"),
};

/// For a series that only runs if its kernels are there, and time is.
#[derive(Clone, Copy)]
pub(super) struct Spare {
    /// When the steps were begun.
    pub(super) start: Instant,
}

impl Spare {
    /// Thrice what a machine usually takes on two cores.
    const ENOUGH: Duration = Duration::from_secs(20 * 60);

    /// Why a series cannot have a machine, if so.
    fn why_not(self, series: &str) -> Result<Option<String>> {
        for Machine { flavour, .. } in [PLAIN, DEBUG] {
            if !kernel::cached(series, flavour)? {
                return Ok(Some(format!(
                    "the cache lacks a kernel (cargo xtask test --step kernels-{series})"
                )));
            }
        }
        let left = self.left();
        Ok((left < Self::ENOUGH).then(|| {
            let minutes = left.as_secs() / 60;
            format!("only {minutes} minutes were left (cargo xtask test --kernel {series})")
        }))
    }

    fn left(self) -> Duration {
        BUDGET.saturating_sub(self.start.elapsed())
    }
}

/// The steps with the kernels of a series.
pub(super) fn steps(series: &str, spare: Option<Spare>) -> Vec<Step> {
    let name = |what: &str| match series {
        SERIES => what.to_owned(),
        series => format!("{what}-{series}"),
    };
    let mut steps = Vec::new();
    if spare.is_none() {
        let work = {
            let series = series.to_owned();
            move |log: &Log| kernels(log, &series)
        };
        let title = format!("{series} kernels with the patches");
        let needs = &[system::KERNEL];
        steps.push(step(name("kernels"), title, needs, Beside(Box::new(work))));
    }
    if series == SERIES {
        let title = "VM harness reports what goes wrong";
        steps.push(step("vm-harness", title, GUEST, Beside(Box::new(harness))));
        let title = "instructions of a snapshot";
        let count = Beside(Box::new(instructions));
        steps.push(step("vm-instructions", title, GUEST, count));
    }
    for machine in [PLAIN, DEBUG] {
        let work = {
            let series = series.to_owned();
            move |log: &Log| {
                let mut machine = machine;
                if let Some(spare) = spare {
                    if let Some(reason) = spare.why_not(&series)? {
                        return Ok(NotRun(reason));
                    }
                    machine.limit = machine.limit.min(spare.left().as_secs());
                }
                suite(log, &series, machine)
            }
        };
        let flavour = machine.flavour.name();
        let title = format!("integration tests, {series} {flavour}");
        let name = name(&format!("vm-{flavour}"));
        steps.push(step(name, title, GUEST, Beside(Box::new(work))));
    }
    steps
}

/// Builds the kernels of a series, or finds them in the cache.
fn kernels(log: &Log, series: &str) -> Result<Outcome> {
    for Machine { flavour, .. } in [PLAIN, DEBUG] {
        let build = kernel::command("kernel build")?.arg(series);
        let build = build.args(["--flavour", flavour.name()]);
        log.run(line(BUILDING).then(&build))?;
    }
    Ok(Passed)
}

/// The harness itself: without this, a step that cannot fail would pass.
fn harness(log: &Log) -> Result<Outcome> {
    let boot = || -> Result<Cmd> { Ok(kernel::command("vm --kernel")?.arg(SERIES)) };
    log.say("a command's own exit status is the run's:")?;
    log.expect(7, boot()?.args(["--", "exit 7"]))?;
    log.say("a warning in the kernel's log fails the run:")?;
    let warn = "echo 'WARNING: made up by a test of the harness' >/dev/kmsg";
    log.expect(123, boot()?.args(["--", warn]))?;
    log.say("so does no end in time:")?;
    log.expect(124, boot()?.args(["--limit", "5", "--", "sleep 60"]))?;
    Ok(Passed)
}

/// Counts what a snapshot costs, where that is the same each time.
fn instructions(log: &Log) -> Result<Outcome> {
    let program = workspace::test_program("integration")?;
    let boot = kernel::command("vm --icount --kernel")?.args([SERIES, "--"]);
    log.run(
        boot.arg(program)
            .env("URING_SUITE_INNER", "instructions")
            .env("RUST_BACKTRACE", "0"),
    )?;
    Ok(Passed)
}

/// Runs the trials of a machine in one boot.
fn suite(log: &Log, series: &str, machine: Machine) -> Result<Outcome> {
    log.run(line("cargo build -p uring-testkit -p uring-tools --bins"))?;
    log.run(line("cargo build --examples"))?;
    log.run(line("cargo test --test integration --no-run"))?;
    let program = workspace::test_program("integration")?;
    let listed = cmd([&program]).arg("--list").args(machine.filter).read()?;
    if listed.trim().is_empty() {
        bail!("no trial is to run: {:?}", machine.filter);
    }
    let name = format!("{series}-{}", machine.flavour.name());
    let boot = kernel::command("vm --kernel")?
        .arg(series)
        .args(["--flavour", machine.flavour.name()])
        .args(["--memory", machine.memory])
        .args(["--limit", &machine.limit.to_string()])
        .arg("--")
        .arg(&program)
        .args(machine.filter)
        // The guest's command has this one's environment.
        .env(results::VARIABLE, results::fresh(&name)?)
        .env("URING_SUITE_NATIVE", "1")
        .env("URING_SUITE_STRESS", machine.stress.to_string())
        .env(suites::LIMIT_FACTOR, machine.slow.to_string())
        // Whose file and line cost seconds each: the guest reads them slowly.
        .env("RUST_BACKTRACE", "0");
    if machine.filter.is_none() {
        log.say("both forms of the programs, and both ways to load them:")?;
        let boot = kernel::command("vm --kernel")?.arg(series);
        log.run(boot.arg("--").arg(workspace::unit_tests()?))?;
    }
    log.run(boot)?;
    let results = results::of(&name)?.context("the suite wrote no results")?;
    skips::compare(&results, &name, machine.filter)?;
    Ok(Passed)
}
