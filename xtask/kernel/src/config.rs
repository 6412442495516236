//! A kernel's configuration: tinyconfig, fragments on top, and the proof that
//! everything that was asked came out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context as _, Result};
use xtask_base::run::cmd;
use xtask_base::Flavour;

use crate::make;

/// The fragments of a flavour, in order: what all series share, and what is the
/// series' own.
pub(crate) fn fragments(series: &str, flavour: Flavour) -> Vec<PathBuf> {
    let shared: &[&str] = match flavour {
        Flavour::Plain => &["kernel/config.plain"],
        Flavour::Debug => &["kernel/config.plain", "kernel/config.debug"],
        Flavour::Kcore => &["kernel/config.plain", "kernel/config.kcore"],
    };
    let own = Path::new("kernel").join(series).join("config");
    let shared = shared.iter().map(PathBuf::from);
    shared.chain(own.exists().then_some(own)).collect()
}

/// Configures a build folder.
pub(crate) fn configure(tree: &Path, build: &Path, fragments: &[PathBuf]) -> Result<()> {
    fs::create_dir_all(build).with_context(|| format!("cannot make {}", build.display()))?;
    make::quietly(tree, build, "tinyconfig")?;
    let config = build.join(".config");
    // It wants to find the tree's Kconfig files under the current folder.
    cmd([tree.join("scripts/kconfig/merge_config.sh")])
        .args(["-m", "-O"])
        .arg(build)
        .arg(&config)
        .args(absolute(fragments)?)
        .dir(tree)
        .read()?;
    make::quietly(tree, build, "olddefconfig")?;

    let mut asked = String::new();
    for fragment in fragments {
        asked += &fs::read_to_string(fragment)
            .with_context(|| format!("cannot read {}", fragment.display()))?;
    }
    let given = fs::read_to_string(&config).context("no .config came out")?;
    let refused = refused(&asked, &given);
    if !refused.is_empty() {
        bail!(
            "the configuration does not come out as {} ask (a dependency is missing, or the option is gone):\n  {}",
            names(fragments),
            refused.join("\n  ")
        );
    }
    Ok(())
}

fn absolute(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let found = paths.iter().map(fs::canonicalize);
    found
        .collect::<Result<_, _>>()
        .context("a fragment is missing")
}

fn names(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    names.join(" and ")
}

/// What was asked and not given.
fn refused(asked: &str, given: &str) -> Vec<String> {
    let given = options(given);
    let differs = |(name, value): &(&str, &str)| given.get(name).unwrap_or(&"n") != value;
    let refused = options(asked).into_iter().filter(differs);
    refused
        .map(|(name, value)| {
            let is = given.get(name).unwrap_or(&"n");
            format!("{name}={value} was asked, {name}={is} came out")
        })
        .collect()
}

/// The options of a configuration; the last word on each counts.
fn options(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(option).collect()
}

fn option(line: &str) -> Option<(&str, &str)> {
    if let Some(name) = line.strip_prefix("# ") {
        let name = name.strip_suffix(" is not set")?;
        return name.starts_with("CONFIG_").then_some((name, "n"));
    }
    line.split_once('=')
        .filter(|(name, _)| name.starts_with("CONFIG_"))
}

#[cfg(test)]
mod tests {
    use super::refused;

    #[test]
    fn what_was_not_given_is_named() {
        let asked =
            "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=17\n# a comment\n# CONFIG_A is not set\n";
        assert_eq!(refused(asked, "CONFIG_C=17\n"), Vec::<String>::new());
        assert_eq!(
            refused(asked, "CONFIG_A=y\nCONFIG_C=18\n"),
            [
                "CONFIG_A=n was asked, CONFIG_A=y came out",
                "CONFIG_C=17 was asked, CONFIG_C=18 came out"
            ]
        );
    }
}
