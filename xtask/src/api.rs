//! `cargo xtask api`: the public API of the library as a text, so that a review sees
//! each change of it. The same items must be there with and without feature `bpf`,
//! so that a documentation built without native libraries shows all of them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xtask_base::run::{cmd, line};
use xtask_base::workspace::{self, LIBRARY};

use crate::tools;

/// The version of cargo-public-api that this repository uses: it reads the JSON of
/// the rustdoc that the list names.
const TOOL: &str = "0.52.0";

/// The list.
const LIST: &str = "tests/api.txt";

/// What its first line begins with; the rest says what has made it.
const HEAD: &str = "# Written by `cargo xtask api`, with ";

/// The feature that must change nothing.
const BPF: &str = "bpf";

/// What rustdoc is started by. Not the whole build: build scripts would run again.
const RUSTDOC: &str = "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc \"$@\"\n";

/// How a comparison ended.
pub(crate) enum Compared {
    Same,
    /// It was not made, for this reason.
    NotMade(String),
    /// Lines that begin with `-` or `+`, and what to do.
    Different(String),
}

/// Writes the list.
pub(crate) fn accept() -> Result<()> {
    let (with, without) = lists()?;
    let text = format!("{HEAD}{}\n{}\n", makers()?, with.join("\n"));
    fs::write(LIST, text).with_context(|| format!("cannot write {LIST}"))?;
    println!("{LIST} has {} items: look at what git shows", with.len());
    let change = difference(&with, &without);
    if !change.is_empty() {
        println!("without feature {BPF} it would be another list:\n{change}");
    }
    Ok(())
}

/// Compares the API with the list, and with itself without feature `bpf`.
pub(crate) fn compare() -> Result<Compared> {
    if !Path::new(LIST).exists() {
        let what = format!("there is no {LIST}: run `cargo xtask api`, and commit it");
        return Ok(Compared::Different(what));
    }
    let listed = fs::read_to_string(LIST).with_context(|| format!("cannot read {LIST}"))?;
    let first = listed.lines().next().unwrap_or_default();
    let (recorded, here) = (first.strip_prefix(HEAD).unwrap_or_default(), makers()?);
    if recorded != here {
        return Ok(Compared::NotMade(format!(
            "{LIST} is of {recorded}, and this is {here}"
        )));
    }
    let listed: Vec<String> = listed.lines().skip(1).map(str::to_owned).collect();
    let (with, without) = lists()?;
    let mut different = String::new();
    let change = difference(&listed, &with);
    if !change.is_empty() {
        different += &format!(
            "the public API is not that of {LIST}:\n{change}\
             If that is meant: run `cargo xtask api`, and commit the list.\n"
        );
    }
    let change = difference(&with, &without);
    if !change.is_empty() {
        different += &format!("without feature {BPF} the public API is another one:\n{change}");
    }
    Ok(match different.is_empty() {
        true => Compared::Same,
        false => Compared::Different(different),
    })
}

/// What makes the list: another rustc may print the same items in another way.
fn makers() -> Result<String> {
    let rustc = line("rustc --version").read()?;
    Ok(format!("{} and cargo-public-api {TOOL}", rustc.trim_end()))
}

/// The items with all features, and with all but `bpf`.
fn lists() -> Result<(Vec<String>, Vec<String>)> {
    let without = workspace::features_without(BPF)?;
    let with: Vec<String> = without.iter().cloned().chain([BPF.to_owned()]).collect();
    Ok((items(&with)?, items(&without)?))
}

/// The items with these features, a line each.
fn items(features: &[String]) -> Result<Vec<String>> {
    let tool = tools::program("cargo-public-api", TOOL)?;
    let json = workspace::target_dir()?.join(format!("doc/{}.json", LIBRARY.replace('-', "_")));
    line("cargo rustdoc --lib --no-default-features --package")
        .args([LIBRARY, "--features", &features.join(",")])
        .args("-- -Z unstable-options --output-format json --cap-lints allow".split(' '))
        .env("RUSTDOC", rustdoc()?)
        .run()?;
    let said = cmd([tool])
        .args("--omit blanket-impls,auto-trait-impls --rustdoc-json".split(' '))
        .arg(json)
        .read()?;
    Ok(said.lines().map(str::to_owned).collect())
}

/// The program that rustdoc is started by.
fn rustdoc() -> Result<PathBuf> {
    let dir = workspace::root()?
        .join(workspace::target_dir()?)
        .join("api");
    let program = dir.join("rustdoc");
    let cannot = || format!("cannot write {}", program.display());
    fs::create_dir_all(&dir).with_context(cannot)?;
    fs::write(&program, RUSTDOC).with_context(cannot)?;
    fs::set_permissions(&program, Permissions::from_mode(0o755)).with_context(cannot)?;
    Ok(program)
}

/// What the second list lacks, and has besides: a line each.
fn difference(one: &[String], other: &[String]) -> String {
    let only = |sign: char, these: &[String], those: &[String]| {
        let lines = these.iter().filter(|item| !those.contains(item));
        lines
            .map(|item| format!("{sign} {item}\n"))
            .collect::<String>()
    };
    only('-', one, other) + &only('+', other, one)
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn what_is_gone_and_what_is_new() {
        let list = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(difference(&list("a b c"), &list("a d c")), "- b\n+ d\n");
        assert_eq!(difference(&list("a b"), &list("a b")), "");
    }
}
