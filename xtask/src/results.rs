//! What the integration tests write of a run: how each trial ended, on which kernel.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{bail, Context as _, Result};
use serde_json::Value;
use xtask_base::workspace;

/// The variable that tells the suite where to write.
pub(crate) const VARIABLE: &str = "URING_SUITE_RESULTS";

/// How a trial ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    Ok,
    Failed,
    /// For this reason.
    Skipped(String),
}

/// The results of one run.
pub(crate) struct Results {
    /// The kernel's release, as uname(1) tells it.
    pub(crate) kernel: String,
    pub(crate) trials: BTreeMap<String, Ended>,
    /// How long each that ended has taken.
    pub(crate) seconds: BTreeMap<String, f64>,
}

/// Where the results on a machine go; makes the folder. What an earlier run has
/// written there is removed.
pub(crate) fn fresh(machine: &str) -> Result<PathBuf> {
    let path = path(machine)?;
    let dir = path.parent().context("results have a folder")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    if path.exists() {
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(path)
}

/// Removes the results of earlier runs.
pub(crate) fn forget() -> Result<()> {
    let dir = dir()?;
    match dir.exists() {
        true => {
            fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))
        }
        false => Ok(()),
    }
}

/// The results on a machine, if there are any.
pub(crate) fn of(machine: &str) -> Result<Option<Results>> {
    let path = path(machine)?;
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    let results = parse(&text).with_context(|| path.display().to_string());
    results.map(Some)
}

/// The slowest trials of the runs since then, the slowest first: seconds, the machine,
/// the trial.
pub(crate) fn slowest(since: SystemTime, count: usize) -> Result<Vec<(f64, String, String)>> {
    let dir = dir()?;
    let mut all = Vec::new();
    if !dir.exists() {
        return Ok(all);
    }
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(machine) = name.strip_suffix(".json") else {
            continue;
        };
        if entry.metadata()?.modified()? < since {
            continue;
        }
        if let Some(results) = of(machine)? {
            let times = results.seconds.into_iter();
            all.extend(times.map(|(trial, took)| (took, machine.to_owned(), trial)));
        }
    }
    all.sort_by(|one, other| other.0.total_cmp(&one.0));
    all.truncate(count);
    Ok(all)
}

fn path(machine: &str) -> Result<PathBuf> {
    Ok(dir()?.join(format!("{machine}.json")))
}

/// Absolute: the suite may have another current folder.
fn dir() -> Result<PathBuf> {
    let target = workspace::root()?.join(workspace::target_dir()?);
    Ok(target.join("matrix"))
}

fn parse(text: &str) -> Result<Results> {
    let all: Value = serde_json::from_str(text).context("no JSON")?;
    let kernel = all["kernel"].as_str().context("no kernel")?.to_owned();
    let trials = all["trials"].as_object().context("no trials")?;
    let trials = trials.iter().map(|(name, ended)| {
        let skipped = ended["skipped"].as_str();
        let ended = match (ended.as_str(), skipped) {
            (Some("ok"), _) => Ended::Ok,
            (Some("failed"), _) => Ended::Failed,
            (_, Some(reason)) => Ended::Skipped(reason.to_owned()),
            _ => bail!("{name} ended as {ended}"),
        };
        Ok((name.clone(), ended))
    });
    let seconds = all["seconds"].as_object().into_iter().flatten();
    let seconds = seconds.filter_map(|(name, took)| Some((name.clone(), took.as_f64()?)));
    Ok(Results {
        kernel,
        trials: trials.collect::<Result<_>>()?,
        seconds: seconds.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::{parse, Ended};

    #[test]
    fn each_trial_has_an_end() {
        let text =
            r#"{"kernel": "6.1", "trials": {"a": "ok", "b": "failed", "c": {"skipped": "x"}}}"#;
        let results = parse(text).unwrap();
        assert_eq!(results.kernel, "6.1");
        assert_eq!(results.trials["a"], Ended::Ok);
        assert_eq!(results.trials["b"], Ended::Failed);
        assert_eq!(results.trials["c"], Ended::Skipped("x".into()));
        assert!(results.seconds.is_empty());
        let text = r#"{"kernel": "6.1", "trials": {"a": "ok"}, "seconds": {"a": 1.5}}"#;
        assert_eq!(parse(text).unwrap().seconds["a"], 1.5);
        assert!(parse(r#"{"kernel": "6.1", "trials": {"a": "so so"}}"#).is_err());
        assert!(parse("").is_err());
    }
}
