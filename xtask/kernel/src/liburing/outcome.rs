//! How programs ended on two kernels, and whether the one is worse.

use std::collections::BTreeMap;
use std::fmt;

/// How one program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    Passed,
    Skipped,
    Failed,
    TimedOut,
}

impl Outcome {
    pub(super) const ALL: [Self; 4] = [Self::Passed, Self::Skipped, Self::Failed, Self::TimedOut];

    /// By the exit status: 77 is liburing's for a skip, 124 and 137 are timeout(1)'s.
    pub(super) fn of(status: i32) -> Self {
        match status {
            0 => Self::Passed,
            77 => Self::Skipped,
            124 | 137 => Self::TimedOut,
            _ => Self::Failed,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::TimedOut => "timed out",
        })
    }
}

/// The outcomes of each program, one for each time that it ran.
#[derive(Default)]
pub(super) struct Outcomes(BTreeMap<String, Vec<Outcome>>);

impl Outcomes {
    pub(super) fn add(&mut self, name: &str, outcome: Outcome) {
        self.0.entry(name.to_owned()).or_default().push(outcome);
    }

    pub(super) fn extend(&mut self, more: Self) {
        for (name, outcomes) in more.0 {
            self.0.entry(name).or_default().extend(outcomes);
        }
    }

    /// Empty for one that never ran.
    fn of(&self, name: &str) -> &[Outcome] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The programs whose first outcome is this one.
    pub(super) fn first(&self, outcome: Outcome) -> Vec<&str> {
        let is = |(_, outcomes): &(&String, &Vec<Outcome>)| outcomes.first() == Some(&outcome);
        self.0.iter().filter(is).map(|(name, _)| &**name).collect()
    }
}

/// A program that did not end alike.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) name: String,
    /// It passes without the patches, and with them never does.
    pub(super) worse: bool,
    shown: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<24} {}", self.name, self.shown)
    }
}

/// What differs, in order of the names.
pub(super) fn differences(
    names: &[String],
    unpatched: &Outcomes,
    patched: &Outcomes,
) -> Vec<Difference> {
    let mut found = Vec::new();
    for name in names {
        let (before, after) = (unpatched.of(name), patched.of(name));
        if before == after {
            continue;
        }
        let passes = |outcomes: &[Outcome]| outcomes.contains(&Outcome::Passed);
        found.push(Difference {
            name: name.clone(),
            worse: passes(before) && !passes(after),
            shown: format!("unpatched: {}; patched: {}", list(before), list(after)),
        });
    }
    found
}

fn list(outcomes: &[Outcome]) -> String {
    if outcomes.is_empty() {
        return "not run".to_owned();
    }
    let names: Vec<String> = outcomes.iter().map(ToString::to_string).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::{differences, Outcome, Outcomes};

    fn outcomes(of: &[(&str, i32)]) -> Outcomes {
        let mut outcomes = Outcomes::default();
        for (name, status) in of {
            outcomes.add(name, Outcome::of(*status));
        }
        outcomes
    }

    #[test]
    fn worse_is_what_passed_and_never_does() {
        let unpatched = [("a", 0), ("b", 0), ("c", 1), ("d", 0), ("e", 0), ("f", 0)];
        let patched = [
            ("a", 0),
            ("b", 1),
            ("c", 0),
            ("d", 77),
            ("e", 124),
            ("e", 0),
        ];
        let names = ["a", "b", "c", "d", "e", "f"].map(str::to_owned);
        let found = differences(&names, &outcomes(&unpatched), &outcomes(&patched));
        let found: Vec<(&str, bool)> = found.iter().map(|d| (&*d.name, d.worse)).collect();
        let want = [
            ("b", true),
            ("c", false),
            ("d", true),
            ("e", false),
            ("f", true),
        ];
        assert_eq!(found, want);
    }
}
