//! What a series makes of the kernel's files, as its patches alone tell it: those that
//! it adds, whole; of those that it changes, the lines that it takes and gives.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{bail, Context as _, Result};

use crate::patches;

/// A file by its lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) lines: Vec<String>,
    /// The series makes it: the lines are its contents, and else those of patches,
    /// each with its sign, without what is around them.
    added: bool,
}

/// The files of a series, by name.
pub(crate) type Views = BTreeMap<String, View>;

/// The files that the patches of a series touch.
pub(crate) fn of(series: &str) -> Result<Views> {
    let mut views = Views::new();
    for patch in patches::of(series)? {
        let cannot = || format!("cannot read {}", patch.display());
        let text = String::from_utf8_lossy(&fs::read(&patch).with_context(cannot)?).into_owned();
        take(&mut views, &text).with_context(|| patch.display().to_string())?;
    }
    Ok(views)
}

/// Takes one patch in.
fn take(views: &mut Views, patch: &str) -> Result<()> {
    for section in patch.split("\ndiff --git a/").skip(1) {
        let name = section.split_once(" b/").map(|(_, rest)| rest);
        let name = name.and_then(|rest| rest.lines().next());
        let name = name.context("a file without a name")?;
        let (head, hunks) = section.split_once("\n@@ ").unwrap_or((section, ""));
        if head.contains("\ndeleted file ") || head.contains("\nrename from ") {
            bail!("{name} is removed or renamed, which is not compared");
        }
        let view = views.entry(name.to_owned()).or_default();
        view.added |= head.contains("\nnew file mode ");
        let hunks = hunks.split("\n@@ ").filter(|hunk| !hunk.is_empty());
        if view.added {
            let lines = applied(&view.lines, hunks).with_context(|| name.to_owned())?;
            view.lines = lines;
        } else {
            let lines = hunks.flat_map(body).filter(|line| !line.starts_with(' '));
            view.lines.extend(lines.map(str::to_owned));
        }
    }
    Ok(())
}

/// A file's lines after hunks, each of which must fit to the letter.
fn applied<'a>(old: &[String], hunks: impl Iterator<Item = &'a str>) -> Result<Vec<String>> {
    let mut new = Vec::new();
    let mut at = 0;
    for hunk in hunks {
        let start = start(hunk).context("a hunk without a place")?;
        let between = old.get(at..start).context("hunks that do not follow")?;
        new.extend_from_slice(between);
        at = start;
        for line in body(hunk) {
            let (sign, line) = line.split_at(1);
            if sign != "+" {
                if old.get(at).is_none_or(|old| old != line) {
                    bail!("line {} is not {line:?}", at + 1);
                }
                at += 1;
            }
            if sign != "-" {
                new.push(line.to_owned());
            }
        }
    }
    new.extend_from_slice(&old[at..]);
    Ok(new)
}

/// How many lines of the old file come before a hunk.
fn start(hunk: &str) -> Option<usize> {
    let (place, _) = hunk.strip_prefix('-')?.split_once(' ')?;
    let (line, count) = place.split_once(',').unwrap_or((place, "1"));
    let line: usize = line.parse().ok()?;
    // A hunk that takes nothing comes after its line.
    Some(if count == "0" { line } else { line - 1 })
}

/// The lines of a hunk with their signs, as many as it says: a signature may follow.
fn body(hunk: &str) -> impl Iterator<Item = &str> {
    let (mut takes, mut gives) = counts(hunk).unwrap_or_default();
    let lines = hunk.lines().skip(1).map(|line| match line {
        // An empty line whose space was lost on the way.
        "" => " ",
        line => line,
    });
    let lines = lines.filter(|line| !line.starts_with('\\'));
    lines.take_while(move |line| {
        let goes_on = takes > 0 || gives > 0;
        takes -= i64::from(!line.starts_with('+'));
        gives -= i64::from(!line.starts_with('-'));
        goes_on
    })
}

/// How many lines a hunk takes and gives.
fn counts(hunk: &str) -> Option<(i64, i64)> {
    let mut places = hunk.split(' ').map(|place| match place.split_once(',') {
        Some((_, count)) => count.parse().ok(),
        None => Some(1),
    });
    Some((places.next()??, places.next()??))
}

#[cfg(test)]
mod tests {
    use super::{take, Views};

    const ADDS: &str = "Subject: x\n\ndiff --git a/n.c b/n.c\nnew file mode 100644\n--- /dev/null\n+++ b/n.c\n@@ -0,0 +1,3 @@\n+one\n+\n+three\n-- \n2.39\n";
    const CHANGES: &str = "\ndiff --git a/n.c b/n.c\n--- a/n.c\n+++ b/n.c\n@@ -1,2 +1,3 @@ f\n one\n+two\n \n\ndiff --git a/o.c b/o.c\n--- a/o.c\n+++ b/o.c\n@@ -8,3 +8,3 @@ g\n a\n-b\n+c\n d\n@@ -80 +80 @@\n-e\n+f\n-- \n2.39\n";

    fn views(patches: &[&str]) -> anyhow::Result<Views> {
        let mut views = Views::new();
        for patch in patches {
            take(&mut views, patch)?;
        }
        Ok(views)
    }

    #[test]
    fn files_come_whole_and_changes_without_their_place() {
        let views = views(&[ADDS, CHANGES]).unwrap();
        assert_eq!(views["n.c"].lines, ["one", "two", "", "three"]);
        assert_eq!(views["o.c"].lines, ["-b", "+c", "-e", "+f"]);
        let moved = CHANGES.replace("-8,3 +8,3", "-9,3 +9,3");
        let moved = moved.replace("\n a\n", "\n z\n");
        assert_eq!(super::tests::views(&[ADDS, &moved]).unwrap(), views);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let other = CHANGES.replace(" one", " four");
        assert!(views(&[ADDS, &other]).is_err());
        assert!(views(&["\ndiff --git a/x b/x\ndeleted file mode 100644\n"]).is_err());
    }
}
