//! The list of the trials that the cells of the table rest on: tests/features.

use std::fs;

use anyhow::{bail, Context as _, Result};

/// The list.
const FEATURES: &str = "tests/features";

/// What one cell rests on.
#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    pub(super) trials: Vec<String>,
    /// Why the answer is no where the trials end well.
    pub(super) cannot: Option<String>,
}

/// The list, by its lines.
pub(super) struct Features {
    lines: Vec<Line>,
}

struct Line {
    feature: String,
    backend: String,
    cell: Cell,
}

/// Stands for every feature.
const EVERY: &str = "*";

pub(super) fn read() -> Result<Features> {
    parse(&fs::read_to_string(FEATURES).with_context(|| format!("cannot read {FEATURES}"))?)
}

pub(super) fn parse(text: &str) -> Result<Features> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let lines: Vec<Line> = lines.map(line).collect::<Result<_>>()?;
    let features = Features { lines };
    for backend in features.backends() {
        for feature in features.features() {
            let of_cell = |line: &&Line| line.feature == feature && line.backend == backend;
            match features.lines.iter().filter(of_cell).count() {
                1 => {}
                count => bail!("{FEATURES}: {feature} by {backend} has {count} lines"),
            }
        }
    }
    Ok(features)
}

fn line(line: &str) -> Result<Line> {
    let (words, cannot) = match line.split_once("-- ") {
        Some((words, reason)) => (words, Some(reason.to_owned())),
        None => (line, None),
    };
    let mut words = words.split_whitespace().map(str::to_owned);
    let (Some(feature), Some(backend)) = (words.next(), words.next()) else {
        bail!("{FEATURES}: not `feature backend trials`: {line}");
    };
    let trials: Vec<String> = words.collect();
    if trials.is_empty() && cannot.is_none() {
        bail!("{FEATURES}: neither a trial nor a reason: {line}");
    }
    Ok(Line {
        feature,
        backend,
        cell: Cell { trials, cannot },
    })
}

impl Features {
    /// The features, in the list's order.
    fn features(&self) -> Vec<&str> {
        let lines = self.lines.iter().map(|line| &*line.feature);
        once_each(lines.filter(|feature| *feature != EVERY))
    }

    /// The same as a person reads them.
    pub(super) fn names(&self) -> Vec<String> {
        let features = self.features().into_iter();
        features.map(|name| name.replace('-', " ")).collect()
    }

    /// The backends, in the list's order.
    pub(super) fn backends(&self) -> Vec<&str> {
        once_each(self.lines.iter().map(|line| &*line.backend))
    }

    /// The cells of a backend, with what each of them needs.
    pub(super) fn row<'a>(&'a self, backend: &'a str) -> impl Iterator<Item = Cell> + 'a {
        let of = move |feature: &str| {
            let mut lines = self.lines.iter();
            let line = lines.find(|line| line.feature == feature && line.backend == backend);
            line.map(|line| line.cell.clone()).unwrap_or_default()
        };
        self.features().into_iter().map(move |feature| {
            let mut cell = of(feature);
            if !cell.trials.is_empty() {
                cell.trials.extend(of(EVERY).trials);
            }
            cell
        })
    }

    /// Wants each trial that is listed to be one: a name that is none would leave its
    /// cell without an answer for ever.
    pub(super) fn must_be_among(&self, trials: &[String]) -> Result<()> {
        let mut listed = self.lines.iter().flat_map(|line| &line.cell.trials);
        match listed.find(|trial| !trials.contains(trial)) {
            Some(unknown) => bail!("{FEATURES}: there is no trial {unknown}"),
            None => Ok(()),
        }
    }
}

fn once_each<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn every_cell_has_one_line() {
        let features = parse("# x\n* b t::a\nf-g b t::b\nf-g c -- why\n").unwrap();
        assert_eq!(features.names(), ["f g"]);
        assert_eq!(features.backends(), ["b", "c"]);
        assert!(features.must_be_among(&["t::a".into()]).is_err());
        let all = ["t::b".into(), "t::a".into()];
        assert!(features.must_be_among(&all).is_ok());
        let row: Vec<_> = features.row("b").collect();
        assert_eq!(row[0].trials, ["t::b", "t::a"]);
        let left_out: Vec<_> = features.row("c").collect();
        assert_eq!(left_out[0].cannot.as_deref(), Some("why"));
        assert!(parse("f b t::a\ng c t::a\n").is_err());
        assert!(parse("f b t::a\nf b t::a\n").is_err());
        assert!(parse("f b\n").is_err());
    }
}
