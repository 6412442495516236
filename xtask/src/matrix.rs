//! `cargo xtask matrix`: the table of kernel by backend by feature in README.md, made
//! of what the trials of the last runs say and of nothing else.

mod features;

use std::fs;

use anyhow::{bail, Context as _, Result};
use xtask_base::run::cmd;
use xtask_base::{workspace, Flavour};

use crate::kernel;
use crate::results::{self, Ended, Results};
use features::{Cell, Features};

const README: &str = "README.md";
/// What stands around the table.
const MARKS: [&str; 2] = [
    "<!-- made by `cargo xtask matrix --write` -->",
    "<!-- end of what is made -->",
];

/// What the trials of a cell say.
#[derive(Debug, PartialEq, Eq)]
enum Says {
    Yes,
    /// For this reason.
    No(String),
    /// Nothing: there is no such thing, for this reason.
    LeftOut(String),
    Failed,
    NotRun,
}

/// Shows the table, or writes it into the README; says whether no cell has failed.
pub(crate) fn matrix(write: bool) -> Result<bool> {
    let features = features::read()?;
    features.must_be_among(&trials()?)?;
    let mut rows = Vec::new();
    for series in kernel::series()? {
        let machines = [Flavour::Plain, Flavour::Debug].map(|f| format!("{series}-{}", f.name()));
        let runs = machines.iter().map(|machine| results::of(machine));
        let runs: Vec<Results> = runs.filter_map(Result::transpose).collect::<Result<_>>()?;
        let kernel = match runs.first() {
            Some(run) => format!("{}, with the patches", version(&run.kernel)),
            None => format!("{series}, with the patches"),
        };
        rows.push((kernel, runs));
    }
    if let Some(run) = results::of("host")? {
        rows.push((format!("{}, as it is", version(&run.kernel)), vec![run]));
    }
    let (table, well) = table(&features, &rows);
    if write {
        let text = fs::read_to_string(README).context("cannot read README.md")?;
        fs::write(README, put(&text, &table)?).context("cannot write README.md")?;
        println!("{README} has the table of these runs");
    } else {
        println!("{table}");
    }
    Ok(well)
}

/// The names of all trials that there are.
fn trials() -> Result<Vec<String>> {
    let program = workspace::test_program("integration")?;
    let listed = cmd([program]).arg("--list").read()?;
    let names = listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}

/// The numbers of a release.
fn version(release: &str) -> &str {
    release.split('-').next().unwrap_or(release)
}

/// The table, in Markdown, with the reasons below; and whether no cell has failed.
fn table(features: &Features, rows: &[(String, Vec<Results>)]) -> (String, bool) {
    let mut text = format!("| Kernel | Backend | {} |\n", features.names().join(" | "));
    text += &format!("|---|---|{}\n", "---|".repeat(features.names().len()));
    let mut reasons: Vec<String> = Vec::new();
    let mut well = true;
    let mut note = |reason: String| {
        let at = reasons.iter().position(|known| *known == reason);
        let at = at.unwrap_or_else(|| {
            reasons.push(reason);
            reasons.len() - 1
        });
        at + 1
    };
    for (kernel, runs) in rows {
        for backend in features.backends() {
            let cells = features.row(backend).map(|cell| match says(&cell, runs) {
                Says::Yes => "yes".to_owned(),
                Says::No(reason) => format!("no ({})", note(reason)),
                Says::LeftOut(reason) => format!("- ({})", note(reason)),
                Says::NotRun => "?".to_owned(),
                Says::Failed => {
                    well = false;
                    "FAILED".to_owned()
                }
            });
            let cells: Vec<String> = cells.collect();
            text += &format!("| {kernel} | {backend} | {} |\n", cells.join(" | "));
        }
    }
    for (at, reason) in (1..).zip(&reasons) {
        text += &format!(
            "\n({at}) {reason}{}",
            if at < reasons.len() { "\\" } else { "\n" }
        );
    }
    (text, well)
}

/// What the runs on a kernel say of a cell: each trial by its best run, unless one failed.
fn says(cell: &Cell, runs: &[Results]) -> Says {
    let ended = |trial: &String| {
        let ends = || runs.iter().filter_map(|run| run.trials.get(trial));
        let failed = ends().find(|ended| **ended == Ended::Failed);
        let ok = ends().find(|ended| **ended == Ended::Ok);
        failed.or(ok).or(ends().next())
    };
    if let ([], Some(reason)) = (&cell.trials[..], &cell.cannot) {
        return Says::LeftOut(reason.clone());
    }
    let ends: Vec<Option<&Ended>> = cell.trials.iter().map(ended).collect();
    let skipped = ends.iter().find_map(|ended| match ended {
        Some(Ended::Skipped(reason)) => Some(reason.clone()),
        _ => None,
    });
    match (skipped, &cell.cannot) {
        _ if ends.contains(&Some(&Ended::Failed)) => Says::Failed,
        _ if ends.contains(&None) => Says::NotRun,
        (Some(reason), _) => Says::No(reason),
        (None, Some(reason)) => Says::No(reason.clone()),
        (None, None) => Says::Yes,
    }
}

/// A text with the table between the marks.
fn put(text: &str, table: &str) -> Result<String> {
    let [begin, end] = MARKS;
    let found = text.split_once(begin);
    let found = found.and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    let Some((before, after)) = found else {
        bail!("{README} lacks the marks for the table:\n{begin}\n{end}");
    };
    Ok(format!("{before}{begin}\n\n{table}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{features, put, says, table, Ended, Results, Says, MARKS};

    fn run(trials: &[(&str, Ended)]) -> Results {
        let trials = trials.iter().cloned();
        Results {
            kernel: "6.1.2-x".into(),
            seconds: BTreeMap::new(),
            trials: trials.map(|(name, ended)| (name.into(), ended)).collect(),
        }
    }

    #[test]
    fn a_cell_says_what_its_trials_say() {
        let features = features::parse("* b t::gate\nf b t::x\ng b t::y -- no text\nh b -- none\n");
        let features = features.unwrap();
        let skipped = || Ended::Skipped("old".into());
        let row = |runs: &[Results]| -> Vec<Says> {
            features.row("b").map(|cell| says(&cell, runs)).collect()
        };
        let none = || Says::LeftOut("none".into());
        let (ok, failed) = (Ended::Ok, Ended::Failed);

        let all = || {
            run(&[
                ("t::gate", ok.clone()),
                ("t::x", ok.clone()),
                ("t::y", ok.clone()),
            ])
        };
        assert_eq!(
            row(&[all()]),
            [Says::Yes, Says::No("no text".into()), none()]
        );
        assert_eq!(row(&[]), [Says::NotRun, Says::NotRun, none()]);
        let gated = run(&[
            ("t::gate", skipped()),
            ("t::x", ok.clone()),
            ("t::y", ok.clone()),
        ]);
        let old = || Says::No("old".into());
        assert_eq!(row(&[gated]), [old(), old(), none()]);
        let failing = || run(&[("t::gate", failed.clone())]);
        assert_eq!(row(&[all(), failing()])[0], Says::Failed);
        assert_eq!(row(&[failing(), all()])[0], Says::Failed);
        let skipping = run(&[("t::gate", skipped())]);
        assert_eq!(row(&[skipping, all()])[0], Says::Yes);
        let half = run(&[("t::gate", ok.clone()), ("t::y", ok.clone())]);
        assert_eq!(row(&[half])[0], Says::NotRun);
    }

    #[test]
    fn the_table_has_its_reasons_once_and_its_place() {
        let features = features::parse("f b t::x\ng b t::x\n").unwrap();
        let runs = vec![run(&[("t::x", Ended::Skipped("old".into()))])];
        let (text, well) = table(&features, &[("6.1".into(), runs)]);
        assert!(well);
        assert!(text.contains("| 6.1 | b | no (1) | no (1) |"), "{text}");
        assert!(text.ends_with("\n(1) old\n"), "{text}");
        let (_, well) = table(
            &features,
            &[("6.1".into(), vec![run(&[("t::x", Ended::Failed)])])],
        );
        assert!(!well);

        let [begin, end] = MARKS;
        let readme = format!("a\n{begin}\nold\n{end}\nz\n");
        let once = put(&readme, &text).unwrap();
        assert!(once.starts_with("a\n") && once.ends_with("\nz\n") && !once.contains("old\n<"));
        assert_eq!(put(&once, &text).unwrap(), once);
        assert!(put("a\n", &text).is_err());
    }
}
