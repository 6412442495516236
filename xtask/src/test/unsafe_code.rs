//! The step that keeps `unsafe` in its two places: the `sys` modules of the
//! library and of the test kit. The compiler refuses unsafe code in every member that
//! has the lints of the workspace; this looks for members that do not have them, and
//! for places that turn the lint down.

use std::fs;
use std::path::Path;

use anyhow::{bail, Context as _, Result};
use xtask_base::workspace;

use super::Outcome::{self, Passed};

/// The lint by which the compiler finds unsafe code.
const LINT: &str = "unsafe_code";
/// Attributes that turn it down.
const LOWERING: &[&str] = &["allow", "expect", "warn"];
/// The crates that have a module `sys` for unsafe code, by their sources.
const CRATES: &[&str] = &["src", "tests/kit/src"];

pub(super) fn check() -> Result<Outcome> {
    let mut wrong = Vec::new();
    if !has_lint(&read(Path::new("Cargo.toml"))?) {
        wrong.push(format!(
            "Cargo.toml: [workspace.lints.rust] does not deny {LINT}"
        ));
    }
    for member in workspace::members()? {
        let manifest = member.join("Cargo.toml");
        if !takes_lints(&read(&manifest)?) {
            let name = manifest.display();
            wrong.push(format!("{name}: the lints are not those of the workspace"));
        }
    }
    for path in workspace::sources_in(Path::new("."))? {
        for (number, follows) in lowered(&read(&path)?) {
            if !in_place(&path, follows) {
                wrong.push(format!("{}:{number}", path.display()));
            }
        }
    }
    if !wrong.is_empty() {
        bail!(
            "{LINT} is turned down outside the modules sys of {}:\n  {}",
            CRATES.join(" and "),
            wrong.join("\n  ")
        );
    }
    println!(
        "{LINT} is turned down nowhere but in the modules sys of {}",
        CRATES.join(" and ")
    );
    Ok(Passed)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The lines of a table of a manifest.
fn table<'a>(manifest: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let heading = format!("[{name}]");
    let mut lines = manifest.lines().map(str::trim);
    let found = lines.any(|line| line == heading);
    lines.take_while(move |line| found && !line.starts_with('['))
}

/// Whether the workspace denies unsafe code.
fn has_lint(manifest: &str) -> bool {
    table(manifest, "workspace.lints.rust").any(|line| line == format!("{LINT} = \"deny\""))
}

/// Whether a member has the lints of the workspace: cargo allows no others beside.
fn takes_lints(manifest: &str) -> bool {
    table(manifest, "lints").any(|line| line == "workspace = true")
}

/// Where `text` turns the lint down: line numbers, and the text from there on.
fn lowered(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices(LINT) {
        let before = &text[..at];
        let line = before.rsplit('\n').next().unwrap_or_default();
        let attribute = before
            .rfind('(')
            .map_or("", |open| before[..open].trim_end());
        let word = attribute.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let lowers = word.take(1).any(|word| LOWERING.contains(&word));
        if lowers && !line.trim_start().starts_with("//") {
            found.push((before.matches('\n').count() + 1, &text[at..]));
        }
    }
    found
}

/// Whether the attribute stands in a place for unsafe code, or on its `mod`.
fn in_place(path: &Path, follows: &str) -> bool {
    let item = follows.split_once(']').map_or("", |(_, item)| item);
    let item = item.trim_start();
    let on_mod = ["mod sys;", "pub mod sys;", "pub(crate) mod sys;"]
        .iter()
        .any(|module| item.starts_with(module));
    CRATES.iter().map(Path::new).any(|sources| {
        let sys = sources.join("sys");
        path.starts_with(&sys)
            || path == sys.with_extension("rs")
            || on_mod && path == sources.join("lib.rs")
    })
}

#[cfg(test)]
mod tests {
    use super::{has_lint, in_place, lowered, takes_lints, LINT};

    fn lines(text: &str) -> Vec<usize> {
        let text = text.replace("LINT", LINT);
        lowered(&text).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn finds_what_turns_the_lint_down() {
        assert_eq!(lines("#![deny(LINT)]\n#[allow(LINT)]\nmod sys;"), [2]);
        assert_eq!(lines("#[allow(\n    dead_code,\n    LINT,\n)]"), [3]);
        assert_eq!(lines("#[cfg_attr(test, expect (LINT))]"), [1]);
        assert_eq!(lines("// allow(LINT)\n#![forbid(LINT)]\nLINT"), [0; 0]);
    }

    #[test]
    fn members_without_the_lints_are_found() {
        let root =
            format!("[workspace.lints.rust]\n{LINT} = \"deny\"\n[lints]\nworkspace = true\n");
        assert!(has_lint(&root) && takes_lints(&root));
        assert!(!has_lint(
            "[workspace.lints.rust]\nmissing_docs = \"warn\"\n"
        ));
        assert!(!has_lint(&format!("[lints.rust]\n{LINT} = \"deny\"\n")));
        assert!(!takes_lints("[package]\nname = \"x\"\n"));
        assert!(!takes_lints("[lints.rust]\n[other]\nworkspace = true\n"));
    }

    #[test]
    fn knows_the_places() {
        let on_mod = format!("{LINT})]\npub(crate) mod sys;");
        assert!(in_place("src/lib.rs".as_ref(), &on_mod));
        assert!(!in_place("src/ring.rs".as_ref(), &on_mod));
        assert!(!in_place(
            "src/lib.rs".as_ref(),
            &format!("{LINT})]\nmod ring;")
        ));
        assert!(in_place("src/sys/mod.rs".as_ref(), ""));
        assert!(in_place("tests/kit/src/sys.rs".as_ref(), ""));
        assert!(in_place("tests/kit/src/sys/ring.rs".as_ref(), ""));
        assert!(!in_place("tests/suite/sys.rs".as_ref(), ""));
    }
}
