//! The step that keeps `unsafe` in its two places: the `sys` modules of the
//! library and of the test kit. The compiler looks for unsafe code in every
//! target of the workspace; this file only looks for the places that allow it.

use std::fs;
use std::path::Path;

use anyhow::{bail, Context as _, Result};

use super::Outcome::{self, Passed};
use crate::run::line;

/// The lint by which the compiler finds unsafe code.
const LINT: &str = "unsafe_code";
/// Attributes that turn it down.
const LOWERING: &[&str] = &["allow", "expect", "warn"];
/// Where Rust sources are.
const SOURCES: &[&str] = &["src", "examples", "tests", "benches", "xtask"];

pub(super) fn check() -> Result<Outcome> {
    let mut wrong = Vec::new();
    for folder in SOURCES {
        visit(Path::new(folder), &mut wrong)?;
    }
    if !wrong.is_empty() {
        bail!(
            "{LINT} is turned down outside src/sys and tests/kit/src/sys:\n  {}",
            wrong.join("\n  ")
        );
    }
    println!("{LINT} is turned down nowhere but in src/sys and tests/kit/src/sys");
    // On the command line, so that no target escapes by lacking the attribute.
    line("cargo clippy --workspace --exclude xtask-vm --all-targets -- -A warnings -D")
        .arg(LINT)
        .run()?;
    Ok(Passed)
}

/// Notes every attribute in `folder` that turns the lint down out of place.
fn visit(folder: &Path, wrong: &mut Vec<String>) -> Result<()> {
    let problem = || format!("cannot read {}", folder.display());
    for entry in fs::read_dir(folder).with_context(problem)? {
        let path = entry.with_context(problem)?.path();
        if path.is_dir() {
            visit(&path, wrong)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).with_context(problem)?;
            for (number, follows) in lowered(&text) {
                if !in_place(&path, follows) {
                    wrong.push(format!("{}:{number}", path.display()));
                }
            }
        }
    }
    Ok(())
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
    for module in ["src/sys", "tests/kit/src/sys"].map(Path::new) {
        if path.starts_with(module) || path == module.with_extension("rs") {
            return true;
        }
    }
    let root = path == Path::new("src/lib.rs") || path == Path::new("tests/kit/src/lib.rs");
    let item = follows
        .split_once(']')
        .map_or("", |(_, item)| item)
        .trim_start();
    root && ["mod sys;", "pub mod sys;", "pub(crate) mod sys;"]
        .iter()
        .any(|module| item.starts_with(module))
}

#[cfg(test)]
mod tests {
    use super::{in_place, lowered, LINT};

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
