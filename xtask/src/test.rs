//! `cargo xtask test`: the list of steps, and their run.
//! What a step does is in the modules below.

mod beside;
mod deps;
mod guest;
mod language;
mod package;
mod report;
mod sanitize;
mod skips;
mod style;
mod suites;
mod unsafe_code;

use std::time::{Duration, Instant, SystemTime};

use anyhow::{bail, Result};
use xtask_base::run::heading;
use xtask_base::system::{self, Need};

use crate::{kernel, matrix, results};
use beside::{Lane, Log};
use guest::{Spare, SERIES};
use report::Report;

/// So many of the slowest trials are named at the end.
const SLOWEST: usize = 10;

/// All steps are to be over by then on two cores, with every kernel in the cache: what
/// takes longer belongs in `cargo xtask soak`, or in a separate command.
const BUDGET: Duration = Duration::from_secs(75 * 60);

/// Which steps to run.
#[derive(Default, clap::Args)]
pub(crate) struct Choice {
    /// Boot kernels of this series, or of all; may be repeated [default: 6.12]
    #[arg(long = "kernel", value_name = "SERIES")]
    kernels: Vec<String>,
    /// Boot the other series' kernels as well, if they are in the cache and time is
    /// left for them; the summary names those that it leaves out.
    #[arg(long, conflicts_with = "kernels")]
    cached: bool,
    /// Build and boot no kernel; what that leaves out is counted as skipped.
    #[arg(long, conflicts_with_all = ["kernels", "cached"])]
    host_only: bool,
    /// Run this step only, of whichever series; may be repeated.
    #[arg(long = "step", value_name = "NAME", conflicts_with = "kernels")]
    steps: Vec<String>,
}

/// How a step that did not fail ended.
enum Outcome {
    /// It ran, and all was well.
    Passed,
    /// It did not run, for this reason.
    NotRun(String),
}

use Outcome::{NotRun, Passed};

struct Step {
    /// What `--step` takes.
    name: String,
    title: String,
    needs: &'static [&'static [Need]],
    run: Run,
}

enum Run {
    /// In its turn.
    Here(fn() -> Result<Outcome>),
    /// With a kernel of ours, beside the others; shown after them.
    Beside(Work),
}

type Work = Box<dyn FnOnce(&Log) -> Result<Outcome> + Send>;

use Run::{Beside, Here};

fn step(
    name: impl Into<String>,
    title: impl Into<String>,
    needs: &'static [&'static [Need]],
    run: Run,
) -> Step {
    Step {
        name: name.into(),
        title: title.into(),
        needs,
        run,
    }
}

/// What a step needs that compiles the library with its default features.
const BUILD: &[&[Need]] = &[system::BUILD];
/// What the integration tests need.
const SUITE: &[&[Need]] = &[system::BUILD, system::SUITE];

/// The steps without a kernel of ours, quick ones first.
#[rustfmt::skip]
fn here() -> Vec<Step> {
    vec![
        step("fmt", "Rust format", &[], Here(style::fmt)),
        step("clang-format", "BPF format", &[system::CLANG_FORMAT], Here(style::clang_format)),
        step("language", "texts in plain English", &[], Here(language::check)),
        step("bpf", "BPF objects match their sources", &[system::BPF], Here(style::bpf)),
        step("series", "series of patches differ as meant", &[], Here(style::series)),
        step("unsafe", "unsafe only in its two places", BUILD, Here(unsafe_code::check)),
        step("clippy", "clippy, for every feature set", BUILD, Here(style::clippy)),
        step("doc", "documentation", BUILD, Here(style::doc)),
        step("api", "public API as it is listed", BUILD, Here(style::api)),
        step("no-native", "library without native libraries", &[], Here(package::without_native_libraries)),
        step("unit", "unit and doc tests", BUILD, Here(suites::unit)),
        step("no-features", "unit tests without BPF", &[], Here(suites::no_features)),
        step("harness", "VM harness: lints and unit tests", &[], Here(suites::harness)),
        step("kit", "test kit, the oracle of the rest", SUITE, Here(suites::kit)),
        step("integration", "integration tests, this kernel", SUITE, Here(suites::integration)),
        step("bench", "benchmarks run, not for numbers", SUITE, Here(suites::bench)),
        step("asan", "AddressSanitizer", SUITE, Here(sanitize::address)),
        step("package", "package builds by itself", BUILD, Here(package::package)),
        step("licences", "licences and sources", &[], Here(deps::licences)),
        step("advisories", "advisory database", &[], Here(deps::advisories)),
        step("miri", "Miri", &[], Here(sanitize::miri)),
        step("msrv", "build with the oldest Rust", BUILD, Here(suites::msrv)),
    ]
}

/// The steps that are asked for. First what goes on beside the rest: emulated
/// processors fill the gaps that linkers and sleeping tests leave.
fn chosen(choice: &Choice, known: &[String], start: Instant) -> Result<Vec<Step>> {
    let all = choice.kernels.iter().any(|name| name == "all");
    let is_known = |name: &&String| *name == "all" || known.contains(name);
    if let Some(name) = choice.kernels.iter().find(|name| !is_known(name)) {
        bail!("no series is called {name:?}, but: {}", known.join(", "));
    }
    let asked = |series: &String| match &choice.kernels[..] {
        [] => series == SERIES,
        kernels => all || kernels.contains(series),
    };
    // What always runs is not to wait for what may.
    let (first, others): (Vec<_>, Vec<_>) = known.iter().partition(|series| *series == SERIES);
    let mut steps = Vec::new();
    for series in first.into_iter().chain(others) {
        // A step that is named may be of any series.
        if asked(series) || choice.cached || !choice.steps.is_empty() {
            let spare = choice.cached && !asked(series);
            steps.extend(guest::steps(series, spare.then_some(Spare { start })));
        }
    }
    steps.extend(here());
    let names: Vec<String> = steps.iter().map(|step| step.name.clone()).collect();
    if let Some(name) = choice.steps.iter().find(|name| !names.contains(name)) {
        bail!("no step is called {name:?}, but: {}", names.join(", "));
    }
    if !choice.steps.is_empty() {
        steps.retain(|step| choice.steps.contains(&step.name));
    }
    Ok(steps)
}

/// Runs the steps that are asked for; says whether none failed.
pub(crate) fn test(choice: &Choice) -> Result<bool> {
    let (start, began) = (Instant::now(), SystemTime::now());
    let steps = chosen(choice, &kernel::series()?, start)?;
    let left_out = |step: &Step| choice.host_only && matches!(step.run, Beside(_));
    let (left_out, steps): (Vec<Step>, Vec<Step>) = steps.into_iter().partition(left_out);

    println!("{}", system::describe());
    let mut report = Report::default();
    for step in left_out {
        println!("LEFT OUT by --host-only: {} ({})", step.title, step.name);
        let why = "left out by --host-only, which boots no kernel of ours";
        report.note(&step.title, Duration::ZERO, Ok(NotRun(why.into())));
    }
    report.take("Packages that the steps need", || {
        let needs = steps.iter().flat_map(|step| step.needs.iter().copied());
        system::ensure(needs.flatten()).map(|()| Passed)
    });
    let whole = choice.steps.is_empty();
    if whole {
        // The table at the end is to be that of this run.
        results::forget()?;
    }
    let lane = Lane::open();
    let mut jobs = Vec::new();
    for step in steps {
        match step.run {
            Here(run) => report.take(&step.title, run),
            Beside(work) => jobs.push((step.title, lane.start(&step.name, work))),
        }
    }
    for (title, job) in jobs {
        heading(&format!("{title} (beside the others)"));
        let (result, took) = match job {
            Ok(job) => job.show(),
            Err(error) => (Err(error), Duration::ZERO),
        };
        report.note(&title, took, result);
    }
    if whole {
        report.take(
            "what ran, by kernel and backend",
            || match matrix::matrix(false)? {
                true => Ok(Passed),
                false => bail!("a cell of the table rests on a trial that failed"),
            },
        );
    }
    let trials = results::slowest(began, SLOWEST)?;
    Ok(report.sum_up(start.elapsed(), &trials))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{chosen, Choice};

    /// The names of the steps with kernels.
    fn kernels_of(choice: &Choice) -> Vec<String> {
        let known = ["6.1", "6.12", "7.2"].map(str::to_owned);
        let steps = chosen(choice, &known, Instant::now()).unwrap();
        let names = steps.into_iter().map(|step| step.name);
        names
            .filter(|name| name.starts_with("vm-") || name.starts_with("kernels"))
            .collect()
    }

    #[test]
    fn which_kernels_are_tested() {
        let ours = [
            "kernels",
            "vm-harness",
            "vm-instructions",
            "vm-plain",
            "vm-debug",
        ];
        let one = ["kernels-6.1", "vm-plain-6.1", "vm-debug-6.1"];
        let other = ["kernels-7.2", "vm-plain-7.2", "vm-debug-7.2"];
        let of = |kernels: &[&str]| Choice {
            kernels: kernels.iter().map(|&name| name.to_owned()).collect(),
            ..Choice::default()
        };
        assert_eq!(kernels_of(&Choice::default()), ours);
        assert_eq!(kernels_of(&of(&["6.1"])), one);
        assert_eq!(kernels_of(&of(&["7.2", "6.1"])), [one, other].concat());
        assert_eq!(
            kernels_of(&of(&["all"])),
            [&ours[..], &one, &other].concat()
        );

        let cached = Choice {
            cached: true,
            ..Choice::default()
        };
        // Nothing is built but ours, and ours goes first.
        let all = [&ours[..], &one[1..], &other[1..]].concat();
        assert_eq!(kernels_of(&cached), all);
        let named = Choice {
            steps: vec!["vm-debug-7.2".into()],
            ..Choice::default()
        };
        assert_eq!(kernels_of(&named), ["vm-debug-7.2"]);
    }

    #[test]
    fn what_is_not_there_is_told() {
        let told = |choice: Choice| {
            let known = ["6.12".to_owned()];
            let steps = chosen(&choice, &known, Instant::now());
            steps.map(drop).unwrap_err().to_string()
        };
        let kernel = told(Choice {
            kernels: vec!["6.1".into()],
            ..Choice::default()
        });
        assert!(kernel.contains("6.1") && kernel.contains("but: 6.12"));
        let step = told(Choice {
            steps: vec!["vm-plain-6.1".into()],
            ..Choice::default()
        });
        assert!(step.contains("vm-plain-6.1") && step.contains("vm-plain, "));
    }
}
