//! `cargo xtask kernel faults`: that the tests can fail. Each patch in
//! kernel/SERIES/faults/ puts one fault into the series, and names the test that
//! must then fail in a guest. The result is a table.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context as _, Result};
use clap::ValueEnum as _;
use xtask_base::run::{heading, line};
use xtask_base::workspace;
use xtask_base::Flavour;

use crate::image::{self, Change};
use crate::vm::{self, Vm};
use crate::{cache, patches};

/// What runs in the guest, without a `--runner`: PROGRAM is the crate's own trials.
const TRIALS: &str = "URING_SUITE_NATIVE=1 URING_SUITE_STRESS=10 URING_SUITE_LIMIT_FACTOR=4 RUST_BACKTRACE=0 PROGRAM";

/// Seconds for a guest: some faults make a test wait for ever.
const LIMIT: u32 = 600;

/// A fault, and what its patch says of it in the lines above its text.
struct Fault {
    name: String,
    patch: PathBuf,
    /// The kernel in which it shows.
    flavour: Flavour,
    /// Which of the crate's trials, and which kernel selftest, is there for it.
    trial: Option<String>,
    selftest: Option<String>,
}

/// How the tests did on a kernel.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    /// What failed, or what the kernel said.
    Failed(String),
    /// Nothing is known: it was not the tests that failed.
    Unclear(String),
}

/// What runs the tests.
enum Tests {
    Trials(PathBuf),
    /// A command that takes the name of a kernel selftest.
    Runner(String),
}

/// Puts the faults of a series back, all or some; says whether each was caught.
pub(crate) fn faults(series: &str, only: &[String], runner: Option<&str>) -> Result<bool> {
    let faults = chosen(of(series)?, only)?;
    let tests = match runner {
        Some(runner) => Tests::Runner(runner.to_owned()),
        None => Tests::Trials(trials()?),
    };
    let guarded = |fault: &&Fault| tests.guarding(fault).is_some();
    for flavour in Flavour::value_variants() {
        let of_flavour = |fault: &&Fault| fault.flavour == *flavour;
        let names = faults.iter().filter(of_flavour);
        let names: BTreeSet<&str> = names.filter_map(|fault| tests.guarding(fault)).collect();
        if !names.is_empty() {
            heading(&format!("no fault, {}", flavour.name()));
            let names: Vec<&str> = names.into_iter().collect();
            tests.must_pass(
                &image::image(series, *flavour, Change::Series)?,
                *flavour,
                &names,
            )?;
        }
    }

    let mut rows = Vec::new();
    for fault in faults.iter().filter(guarded) {
        heading(&fault.name);
        let test = tests.guarding(fault).unwrap_or_default();
        let verdict = match image::image(series, fault.flavour, Change::Further(&fault.patch)) {
            Ok(image) => tests.run(&image, fault.flavour, &[test], &fault.name)?,
            Err(error) => Verdict::Unclear(format!("{error:#}")),
        };
        println!("{}", shown(&verdict));
        rows.push((fault, verdict));
    }
    let unguarded = faults.iter().filter(|fault| !guarded(fault));
    Ok(table(&rows, unguarded))
}

/// The faults of a series, by name.
fn of(series: &str) -> Result<Vec<Fault>> {
    let dir = Path::new("kernel").join(series).join("faults");
    let faults = patches::in_folder(&dir)?.into_iter().map(|patch| {
        let text = fs::read_to_string(&patch)
            .with_context(|| format!("cannot read {}", patch.display()))?;
        let field = |name: &str| field(&text, name).map(str::to_owned);
        let flavour = field("Flavour").unwrap_or_default();
        let Ok(flavour) = Flavour::from_str(&flavour, false) else {
            bail!("{}: no flavour is called {flavour:?}", patch.display());
        };
        let name = patch.file_stem().unwrap_or_default();
        Ok(Fault {
            name: name.to_string_lossy().into_owned(),
            flavour,
            trial: field("Trial"),
            selftest: field("Selftest"),
            patch,
        })
    });
    faults.collect()
}

/// A field of a patch's header, which ends at the first empty line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let header = text.lines().take_while(|line| !line.is_empty());
    let fields = header.filter_map(|line| line.split_once(": "));
    fields
        .filter(|(found, _)| *found == name)
        .map(|(_, value)| value)
        .next()
}

fn chosen(faults: Vec<Fault>, only: &[String]) -> Result<Vec<Fault>> {
    let known: Vec<&str> = faults.iter().map(|fault| &*fault.name).collect();
    if let Some(unknown) = only.iter().find(|name| !known.contains(&&***name)) {
        bail!("no fault is called {unknown:?}, but: {}", known.join(", "));
    }
    let wanted = |fault: &Fault| only.is_empty() || only.contains(&fault.name);
    Ok(faults.into_iter().filter(wanted).collect())
}

/// The program of the crate's own trials, and what it starts, compiled.
fn trials() -> Result<PathBuf> {
    line("cargo build --quiet -p uring-testkit -p uring-tools --bins").run()?;
    line("cargo build --quiet --examples").run()?;
    workspace::test_program("integration")
}

impl Tests {
    /// The test that is there for a fault.
    fn guarding<'a>(&self, fault: &'a Fault) -> Option<&'a str> {
        match self {
            Self::Trials(_) => fault.trial.as_deref(),
            Self::Runner(_) => fault.selftest.as_deref(),
        }
    }

    /// The tests of these names, as a script for the guest; its status is the worst.
    fn script(&self, names: &[&str]) -> String {
        let command = match self {
            Self::Trials(program) => TRIALS.replace("PROGRAM", &program.display().to_string()),
            Self::Runner(command) => command.clone(),
        };
        let lines = names
            .iter()
            .map(|name| format!("{command} {name} || status=1\n"));
        format!("status=0\n{}exit $status", lines.collect::<String>())
    }

    /// What fails without a fault says nothing about one.
    fn must_pass(&self, image: &Path, flavour: Flavour, names: &[&str]) -> Result<()> {
        if let Self::Trials(program) = self {
            for name in names {
                let listed = xtask_base::run::cmd([program])
                    .args(["--list", name])
                    .read()?;
                if listed.trim().is_empty() {
                    bail!("no trial matches {name:?}");
                }
            }
        }
        let name = format!("no-fault-{}", flavour.name());
        match self.run(image, flavour, names, &name)? {
            Verdict::Passed => {
                println!("{} tests pass", names.len());
                Ok(())
            }
            other => bail!("without any fault: {}", shown(&other)),
        }
    }

    /// Runs tests in a guest; what they print goes to a log of this name.
    fn run(&self, image: &Path, flavour: Flavour, names: &[&str], log: &str) -> Result<Verdict> {
        let dir = cache::root()?.join("faults");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let log = dir.join(format!("{log}.log"));
        println!("running {} (log: {})", names.join(", "), log.display());
        let ended = vm::machine(&Vm::new(image, flavour, LIMIT, self.script(names)))?
            .merged()
            .output()?;
        fs::write(&log, &ended.stdout)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let said = String::from_utf8_lossy(&ended.stdout);
        Ok(judge(ended.status.code(), &said))
    }
}

/// What the end of a guest means.
fn judge(status: Option<i32>, said: &str) -> Verdict {
    let mut failed: Vec<&str> = said.lines().filter_map(failed_test).collect();
    let splat = said.lines().skip_while(|line| !line.starts_with(SPLAT));
    let is_heading = |line: &&str| line.contains("WARNING:") || line.contains("BUG:");
    failed.extend(splat.skip(1).find(is_heading));
    // The selftests name them once more at the end.
    let failed: BTreeSet<&str> = failed.into_iter().collect();
    let failed = failed.into_iter().collect::<Vec<_>>().join("; ");
    match status {
        Some(0) => Verdict::Passed,
        Some(vm::SPLAT) if failed.is_empty() => Verdict::Failed("the kernel's log".into()),
        Some(1 | vm::SPLAT) if !failed.is_empty() => Verdict::Failed(failed),
        Some(vm::TIME) => Verdict::Unclear(format!("no end within {LIMIT} s")),
        Some(code) => Verdict::Unclear(format!("exit status {code}, and no test said why")),
        None => Verdict::Unclear("the machine was killed".into()),
    }
}

/// How the harness begins what the kernel said.
const SPLAT: &str = "vm: the kernel found a fault";

/// The test that a line of output reports as failed: `---- NAME ----` of the trials
/// (what a trial says may come between its name and `FAILED`), `FAIL NAME` or
/// `#1/2 NAME:FAIL` of the selftests.
fn failed_test(line: &str) -> Option<&str> {
    let trial = line
        .strip_prefix("---- ")
        .and_then(|rest| rest.split_once(" ----"));
    let runner = line
        .strip_prefix("FAIL ")
        .and_then(|rest| rest.split_once(' '));
    let progs = line
        .strip_prefix('#')
        .and_then(|rest| rest.strip_suffix(":FAIL"))
        .and_then(|rest| rest.rsplit_once(' '));
    match (trial.or(runner), progs) {
        (Some((name, _)), _) | (None, Some((_, name))) => Some(name.trim()),
        (None, None) => None,
    }
}

fn shown(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Passed => "NOT CAUGHT".to_owned(),
        Verdict::Failed(by) => format!("caught: {by}"),
        Verdict::Unclear(why) => format!("UNCLEAR: {why}"),
    }
}

/// Prints the table; says whether every fault in it was caught.
fn table<'a>(rows: &[(&Fault, Verdict)], unguarded: impl Iterator<Item = &'a Fault>) -> bool {
    heading("Summary");
    let mut missed = 0;
    for (fault, verdict) in rows {
        missed += usize::from(!matches!(verdict, Verdict::Failed(_)));
        let flavour = fault.flavour.name();
        let first = shown(verdict);
        let first = first.lines().next().unwrap_or_default();
        println!("{:<28} {flavour:<6} {first}", fault.name);
    }
    for fault in unguarded {
        println!(
            "{:<28} {:<6} not run: no test of this kind is there for it",
            fault.name, ""
        );
    }
    println!("\n{} faults, {missed} not caught", rows.len());
    missed == 0
}

#[cfg(test)]
mod tests {
    use super::{failed_test, field, judge, Verdict};

    #[test]
    fn a_header_ends_where_the_text_begins() {
        let patch = "Fault: x\nFlavour: debug\n\nTrial: none\n";
        assert_eq!(field(patch, "Flavour"), Some("debug"));
        assert_eq!(field(patch, "Trial"), None);
    }

    #[test]
    fn failed_tests_are_named() {
        assert_eq!(failed_test("---- a::b ----"), Some("a::b"));
        assert_eq!(failed_test("test a::b ... ok"), None);
        assert_eq!(failed_test("FAIL quiesce (0.1 s)"), Some("quiesce"));
        assert_eq!(failed_test("#7/2     iter/x:FAIL"), Some("iter/x"));
        assert_eq!(failed_test("#7/2     iter/x:OK"), None);
    }

    #[test]
    fn only_tests_and_the_kernel_catch() {
        assert_eq!(judge(Some(0), ""), Verdict::Passed);
        let failed = judge(Some(1), "test a ... FAILED\n---- a ----\n");
        assert_eq!(failed, Verdict::Failed("a".into()));
        let splat = "vm: the kernel found a fault:\n====\n[1] BUG: KASAN: x\n";
        assert_eq!(
            judge(Some(123), splat),
            Verdict::Failed("[1] BUG: KASAN: x".into())
        );
        for status in [Some(1), Some(124), Some(125), Some(127), None] {
            assert!(matches!(judge(status, ""), Verdict::Unclear(_)));
        }
    }
}
