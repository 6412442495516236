//! `cargo xtask kernel compare`: in what the series differ from one of them, and that
//! it is what was meant. What is meant is recorded beside their patches.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context as _, Result};
use xtask_base::run::{cmd, heading};

use crate::source;
use crate::view::{self, View, Views};

/// The series that the others are compared with.
const BASE: &str = "6.12";

/// Above a record.
const HEAD: &str = "\
# In what the series differs from that of BASE, as it is meant to. Written by
# `cargo xtask kernel compare --record`, compared by `cargo xtask test`.
# Files that the series add are compared whole, others by the lines that the patches
# take and give. Line numbers are left out, so that a fix of all changes nothing here.
";

/// Shows in what each series differs from the base. Says whether that is what is
/// recorded; or records it.
pub(crate) fn compare(record: bool) -> Result<bool> {
    let base = view::of(BASE)?;
    let mut well = true;
    let mut others = source::series()?;
    others.retain(|series| series != BASE);
    println!("compared with {BASE}: {} other series", others.len());
    for series in &others {
        heading(&format!("{series} from {BASE}"));
        let views = view::of(series)?;
        if views.is_empty() {
            bail!("kernel/{series} holds no patches");
        }
        let found = differences((BASE, &base), (series, &views))?;
        let path = PathBuf::from(format!("kernel/{series}/from-{BASE}.diff"));
        if record {
            let text = HEAD.replace("BASE", BASE) + &found;
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            println!("recorded in {}", path.display());
            continue;
        }
        println!("{}", summary(&found));
        let unmeant = unmeant(&recorded(&path)?, &found)?;
        if unmeant.is_empty() {
            println!("as recorded in {}", path.display());
        } else {
            well = false;
            println!("not as recorded in {}:\n\n{unmeant}", path.display());
        }
    }
    if !well {
        println!(
            "- was recorded and is no more, + is new. Mend the patches; or, if it is meant:\n\
             cargo xtask kernel compare --record, and look at what git then shows"
        );
    }
    Ok(well)
}

/// The differences of two series, file by file.
fn differences((one, ours): (&str, &Views), (other, theirs): (&str, &Views)) -> Result<String> {
    let mut text = String::new();
    let names = ours.keys().chain(theirs.keys());
    let names: std::collections::BTreeSet<&String> = names.collect();
    for name in names {
        match (ours.get(name), theirs.get(name)) {
            (Some(ours), Some(theirs)) if ours == theirs => {}
            (Some(ours), Some(theirs)) => text += &difference(name, ours, theirs)?,
            (None, _) => text += &format!("Only in {other}: {name}\n"),
            (_, None) => text += &format!("Only in {one}: {name}\n"),
        }
    }
    Ok(text)
}

/// The differences in one file, without line numbers.
fn difference(name: &str, ours: &View, theirs: &View) -> Result<String> {
    let labels = [format!("a/{name}"), format!("b/{name}")];
    let shown = diff(&ours.lines, &theirs.lines, &labels)?;
    let lines = shown.lines().map(|line| {
        let place = line.strip_prefix("@@ ").and_then(|l| l.split_once(" @@"));
        place.map_or(line.to_owned(), |(_, place)| format!("@@{place}"))
    });
    Ok(lines.map(|line| line + "\n").collect())
}

/// What is recorded and not found, or found and not recorded.
fn unmeant(recorded: &str, found: &str) -> Result<String> {
    // The name of the function around it is only there for a person.
    let plain = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let lines = lines.map(|line| if line.starts_with("@@") { "@@" } else { line });
        lines.map(str::to_owned).collect()
    };
    let labels = ["recorded".to_owned(), "found".to_owned()];
    diff(&plain(recorded), &plain(found), &labels)
}

/// A record; nothing if there is none.
fn recorded(path: &Path) -> Result<String> {
    if !path.exists() {
        return Ok(String::new());
    }
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The differences of two texts as diff(1) shows them.
fn diff(ours: &[String], theirs: &[String], labels: &[String; 2]) -> Result<String> {
    let file = |lines: &[String]| -> Result<_> {
        let mut file = tempfile::NamedTempFile::new().context("no temporary file")?;
        for line in lines {
            writeln!(file, "{line}").context("cannot write a temporary file")?;
        }
        Ok(file)
    };
    let (ours, theirs) = (file(ours)?, file(theirs)?);
    let diff = cmd(["diff", "--unified=0", "--show-c-function"])
        .args(["--label", &labels[0], "--label", &labels[1]])
        .args([ours.path(), theirs.path()])
        .output()?;
    match diff.status.code() {
        Some(0 | 1) => String::from_utf8(diff.stdout).context("diff printed no UTF-8"),
        _ => bail!("diff: {}", String::from_utf8_lossy(&diff.stderr)),
    }
}

/// One line on the differences.
fn summary(found: &str) -> String {
    let count = |start: &str| {
        let lines = found.lines().filter(|line| line.starts_with(start));
        lines.count()
    };
    let files = count("--- ");
    format!(
        "{files} files differ, by {} lines taken and {} given; {} are in one of them only",
        count("-") - files,
        count("+") - files,
        count("Only in ")
    )
}

#[cfg(test)]
mod tests {
    use super::{differences, unmeant, Views};

    fn views(lines: &[&str]) -> Views {
        let mut views = Views::new();
        let view = views.entry("x.c".to_owned()).or_default();
        view.lines = lines.iter().map(|&line| line.to_owned()).collect();
        views
    }

    fn found(ours: &[&str], theirs: &[&str]) -> String {
        differences(("1", &views(ours)), ("2", &views(theirs))).unwrap()
    }

    #[test]
    fn differences_are_shown_without_their_place() {
        let two = found(&["int f()", " a", " b"], &["int f()", " a", " c"]);
        assert_eq!(two, "--- a/x.c\n+++ b/x.c\n@@ int f()\n- b\n+ c\n");
        let later = found(&["new", "int f()", " b"], &["new", "int f()", " c"]);
        assert_eq!(later, two);
        assert_eq!(found(&["a"], &["a"]), "");
        let none = Views::new();
        let only = differences(("1", &views(&["a"])), ("2", &none)).unwrap();
        assert_eq!(only, "Only in 1: x.c\n");
    }

    #[test]
    fn what_is_not_recorded_is_found() {
        let recorded = format!("# a comment\n{}", found(&["a", "b"], &["a", "c"]));
        let same = found(&["new", "a", "b"], &["new", "a", "c"]);
        assert_eq!(unmeant(&recorded, &same).unwrap(), "");
        let more = found(&["a", "b", "x", "e"], &["a", "c", "x", "f"]);
        let told = unmeant(&recorded, &more).unwrap();
        assert!(told.contains("+-e\n++f"), "{told}");
        let less = unmeant(&recorded, "").unwrap();
        assert!(less.contains("--b\n-+c"), "{less}");
    }
}
