//! What the integration tests may skip in our guests: the list in tests/skips, and
//! what a run has skipped, compared. The machine's own kernel is not compared: it may
//! be any.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{bail, Context as _, Result};

use crate::results::{Ended, Results};

/// The list.
const SKIPS: &str = "tests/skips";

/// Wants a run to have skipped what the list says for its machine, and nothing else.
/// It had only trials whose names contain the filter.
pub(super) fn compare(results: &Results, machine: &str, filter: Option<&str>) -> Result<()> {
    let list = fs::read_to_string(SKIPS).with_context(|| format!("cannot read {SKIPS}"))?;
    let mut wanted = parse(&list, machine)?;
    wanted.retain(|trial, _| filter.is_none_or(|filter| trial.contains(filter)));
    let differences = differences(results, &wanted, machine);
    if !differences.is_empty() {
        bail!(
            "what was skipped is not what {SKIPS} says:\n{}",
            differences.join("\n")
        );
    }
    Ok(())
}

/// The trials that a machine skips, with their reasons.
fn parse(list: &str, machine: &str) -> Result<BTreeMap<String, String>> {
    let mut skips = BTreeMap::new();
    let lines = list.lines().map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words = line.split_once(char::is_whitespace);
        let words = words.and_then(|(machines, rest)| Some((machines, rest.split_once(": ")?)));
        let Some((machines, (trial, reason))) = words else {
            bail!("{SKIPS}: not `machines trial: reason`: {line}");
        };
        // A series is its machines of both flavours.
        let series = machine
            .split_once('-')
            .map_or(machine, |(series, _)| series);
        let mut machines = machines.split(',');
        if !machines.any(|name| name == machine || name == series) {
            continue;
        }
        let trial = trial.trim().to_owned();
        if skips.insert(trial, reason.trim().to_owned()).is_some() {
            bail!("{SKIPS}: twice for {machine}: {line}");
        }
    }
    Ok(skips)
}

/// What is not as it is wanted, and what to do about it, a line each.
fn differences(results: &Results, wanted: &BTreeMap<String, String>, machine: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for (trial, ended) in &results.trials {
        let Ended::Skipped(reason) = ended else {
            continue;
        };
        match wanted.get(trial) {
            Some(wanted) if wanted == reason => {}
            Some(wanted) => lines.push(format!(
                "  for another reason: {trial}: {reason}\n    (the list has: {wanted})"
            )),
            None => lines.push(format!(
                "  a new skip; if it is right, this is its line:\n    {machine}  {trial}: {reason}"
            )),
        }
    }
    for trial in wanted.keys() {
        match results.trials.get(trial) {
            Some(Ended::Skipped(_)) => {}
            Some(_) => lines.push(format!(
                "  no longer skipped, so take {machine} out of its line: {trial}"
            )),
            None => lines.push(format!(
                "  not among the trials, so take its line out: {trial}"
            )),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{differences, parse};
    use crate::results::{Ended, Results};

    const LIST: &str =
        "# words\n6.1,6.12-plain  a::b: no c: d\n\n7.2  a::x:  y\n6.12-debug a::b: other\n";

    fn results(trials: &[(&str, Ended)]) -> Results {
        let trials = trials.iter().cloned();
        Results {
            kernel: String::new(),
            seconds: BTreeMap::new(),
            trials: trials.map(|(name, ended)| (name.into(), ended)).collect(),
        }
    }

    fn skipped(reason: &str) -> Ended {
        Ended::Skipped(reason.into())
    }

    #[test]
    fn the_list_can_be_read_for_every_machine() {
        let list = include_str!("../../../tests/skips");
        for series in ["6.1", "6.12", "7.2"] {
            for flavour in ["plain", "debug"] {
                parse(list, &format!("{series}-{flavour}")).unwrap();
            }
        }
    }

    #[test]
    fn a_line_is_for_its_machines() {
        let one = BTreeMap::from([("a::b".to_owned(), "no c: d".to_owned())]);
        assert_eq!(parse(LIST, "6.1-plain").unwrap(), one);
        assert_eq!(parse(LIST, "6.1-debug").unwrap(), one);
        assert_eq!(parse(LIST, "6.12-plain").unwrap(), one);
        assert_eq!(parse(LIST, "6.12-debug").unwrap()["a::b"], "other");
        assert_eq!(parse(LIST, "7.2-plain").unwrap()["a::x"], "y");
        assert!(parse("6.1 a::b", "6.1-plain").is_err());
        assert!(parse("6.1 a: b\n6.1-plain a: c", "6.1-plain").is_err());
    }

    #[test]
    fn every_difference_is_told() {
        let wanted = parse("6.1 a: x\n", "6.1-plain").unwrap();
        let told = |trials: &[_]| differences(&results(trials), &wanted, "6.1-plain");
        let (ok, failed) = (Ended::Ok, Ended::Failed);
        assert!(told(&[("a", skipped("x")), ("b", ok.clone())]).is_empty());
        let new = told(&[("a", skipped("x")), ("b", skipped("y"))]);
        assert!(
            new.len() == 1 && new[0].contains("6.1-plain  b: y"),
            "{new:?}"
        );
        let other = told(&[("a", skipped("z"))]);
        assert!(
            other.len() == 1 && other[0].contains("another reason"),
            "{other:?}"
        );
        for ended in [ok, failed] {
            let ran = told(&[("a", ended)]);
            assert!(ran.len() == 1 && ran[0].contains("no longer"), "{ran:?}");
        }
        let gone = told(&[]);
        assert!(gone.len() == 1 && gone[0].contains("not among"), "{gone:?}");
    }
}
