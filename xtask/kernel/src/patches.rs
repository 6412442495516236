//! The patches of a series, and a source tree brought to the state that some of
//! them describe. Only files whose contents change are written, so that make
//! rebuilds no more than a change asks for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context as _, Result};
use xtask_base::run::cmd;

/// Untouched copies of what patches change, beside the tree.
const ORIGINALS: &str = "originals";
/// The list of every file that patches have changed, made or removed in the tree.
const TOUCHED: &str = "touched";

/// The patches of a series, in order; a cover letter is none. They lie in a folder for
/// each posting, whose name begins with its number.
pub(crate) fn of(series: &str) -> Result<Vec<PathBuf>> {
    let dir = Path::new("kernel").join(series);
    let mut postings = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name().into_encoded_bytes();
        if name.first().is_some_and(u8::is_ascii_digit) {
            postings.push(entry.path());
        }
    }
    postings.sort();
    let patches: Result<Vec<_>> = postings.iter().map(|dir| in_folder(dir)).collect();
    Ok(patches?.concat())
}

/// The patches in a folder, in order; none if there is no such folder.
pub(crate) fn in_folder(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        let patch = path
            .extension()
            .is_some_and(|extension| extension == "patch");
        if patch && !touched_by(&path)?.is_empty() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// What no kernel is made from.
const BESIDE: [&str; 4] = [
    "Documentation/",
    "MAINTAINERS",
    "tools/bpf/bpftool/",
    "tools/testing/",
];

/// What a patch changes in a kernel: without what is said above the change, and
/// without what is beside the kernel.
pub(crate) fn change_of(patch: &Path) -> Result<String> {
    let text =
        fs::read_to_string(patch).with_context(|| format!("cannot read {}", patch.display()))?;
    Ok(change(&text))
}

fn change(text: &str) -> String {
    const FILE: &str = "diff --git a/";
    let start = match text.starts_with(FILE) {
        true => 0,
        false => text
            .find(&format!("\n{FILE}"))
            .map_or(text.len(), |at| at + 1),
    };
    let mut kept = String::new();
    let mut keeps = true;
    for line in text[start..].split_inclusive('\n') {
        if let Some(name) = line.strip_prefix(FILE) {
            keeps = !BESIDE.iter().any(|beside| name.starts_with(beside));
        }
        if keeps {
            kept.push_str(line);
        }
    }
    kept
}

/// The files that a patch changes, makes or removes.
pub(crate) fn touched_by(patch: &Path) -> Result<Vec<PathBuf>> {
    // A patch may hold bytes that are no UTF-8, in another line.
    let bytes = fs::read(patch).with_context(|| format!("cannot read {}", patch.display()))?;
    Ok(touched(&String::from_utf8_lossy(&bytes)))
}

fn touched(text: &str) -> Vec<PathBuf> {
    let headers = text
        .lines()
        .filter_map(|line| line.strip_prefix("diff --git a/"));
    let both = headers.filter_map(|names| names.split_once(" b/"));
    let files: BTreeSet<PathBuf> = both
        .flat_map(|(old, new)| [old, new])
        .map(PathBuf::from)
        .collect();
    files.into_iter().collect()
}

/// Brings the tree in `home` to the state after these patches, and no others.
/// Says how many files it wrote or removed. Wants the home's lock.
pub(crate) fn bring_to(home: &Path, patches: &[PathBuf]) -> Result<usize> {
    let tree = home.join("linux");
    let originals = home.join(ORIGINALS);
    let list = home.join(TOUCHED);

    let mut files: BTreeSet<PathBuf> = match list.exists() {
        true => fs::read_to_string(&list)?
            .lines()
            .map(PathBuf::from)
            .collect(),
        false => BTreeSet::new(),
    };
    for patch in patches {
        for file in touched_by(patch)? {
            if files.contains(&file) {
                continue;
            }
            if tree.join(&file).exists() {
                copy(&tree.join(&file), &originals.join(&file))?;
            }
            files.insert(file);
        }
    }
    // Before the tree changes: what is not listed counts as untouched.
    let names = files.iter().map(|file| format!("{}\n", file.display()));
    fs::write(&list, names.collect::<String>())?;

    let scratch = tempfile::tempdir_in(home).context("no temporary folder")?;
    for file in &files {
        if originals.join(file).exists() {
            copy(&originals.join(file), &scratch.path().join(file))?;
        }
    }
    for patch in patches {
        apply(patch, scratch.path())?;
    }
    let mut changed = 0;
    for file in &files {
        changed += usize::from(sync(&scratch.path().join(file), &tree.join(file))?);
    }
    Ok(changed)
}

/// Applies a patch as strictly as git would: no fuzz.
fn apply(patch: &Path, dir: &Path) -> Result<()> {
    let patch = fs::canonicalize(patch)?;
    let mut input = std::ffi::OsString::from("--input=");
    input.push(&patch);
    let applied =
        cmd("patch --strip=1 --fuzz=0 --batch --forward --no-backup-if-mismatch".split(' '))
            .arg(input)
            .arg("--directory")
            .arg(dir)
            .output()?;
    if !applied.status.success() {
        let said = String::from_utf8_lossy(&applied.stdout);
        bail!("{} does not apply:\n{}", patch.display(), said.trim_end());
    }
    Ok(())
}

/// Makes one file like another, or removes it like the other; says whether it had to.
fn sync(from: &Path, to: &Path) -> Result<bool> {
    match (from.exists(), to.exists()) {
        (false, false) => Ok(false),
        (false, true) => {
            fs::remove_file(to).with_context(|| format!("cannot remove {}", to.display()))?;
            Ok(true)
        }
        (true, there) => {
            if there && fs::read(from)? == fs::read(to)? {
                return Ok(false);
            }
            copy(from, to)?;
            Ok(true)
        }
    }
}

/// Copies a file with its mode, and makes the folders above it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy to {}", to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::{bring_to, change, touched};

    const CHANGE: &str =
        "diff --git a/x/one.c b/x/one.c\n--- a/x/one.c\n+++ b/x/one.c\n@@ -1 +1 @@\n-old\n+new\n";
    const CREATE: &str =
        "diff --git a/x/two.c b/x/two.c\nnew file mode 100644\n--- /dev/null\n+++ b/x/two.c\n@@ -0,0 +1 @@\n+two\n";

    #[test]
    fn a_cover_letter_touches_nothing() {
        assert_eq!(
            touched("Subject: [PATCH 0/2]\n\n x/one.c | 2 +-\n"),
            Vec::<PathBuf>::new()
        );
        assert_eq!(touched(CHANGE), [PathBuf::from("x/one.c")]);
    }

    #[test]
    fn a_change_is_that_of_the_kernel() {
        let beside = CREATE.replace("x/two.c", "tools/testing/two.c");
        let text = format!("Subject: [PATCH]\n\ndiff of words\n---\n\n{CHANGE}{beside}{CREATE}");
        assert_eq!(change(&text), [CHANGE, CREATE].concat());
        assert_eq!(change(CHANGE), CHANGE);
        assert_eq!(change(&beside), "");
        assert_eq!(change("Subject: [PATCH 0/2]\n"), "");
    }

    #[test]
    fn a_tree_goes_forth_and_back_and_only_by_what_differs() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        let patches = [at("1.patch"), at("2.patch")];
        fs::create_dir_all(at("linux/x")).unwrap();
        fs::write(at("linux/x/one.c"), "old\n").unwrap();
        fs::write(&patches[0], CHANGE).unwrap();
        fs::write(&patches[1], CREATE).unwrap();

        assert_eq!(bring_to(home.path(), &patches).unwrap(), 2);
        assert_eq!(fs::read(at("linux/x/one.c")).unwrap(), b"new\n");
        assert_eq!(bring_to(home.path(), &patches).unwrap(), 0);
        assert_eq!(bring_to(home.path(), &patches[..1]).unwrap(), 1);
        assert!(!at("linux/x/two.c").exists());
        assert_eq!(bring_to(home.path(), &[]).unwrap(), 1);
        assert_eq!(fs::read(at("linux/x/one.c")).unwrap(), b"old\n");
    }

    #[test]
    fn a_patch_that_does_not_fit_leaves_the_tree_alone() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::create_dir_all(at("linux/x")).unwrap();
        fs::write(at("linux/x/one.c"), "other\n").unwrap();
        fs::write(at("1.patch"), CHANGE).unwrap();

        let error = bring_to(home.path(), &[at("1.patch")]).unwrap_err();
        assert!(error.to_string().contains("does not apply"), "{error}");
        assert_eq!(fs::read(at("linux/x/one.c")).unwrap(), b"other\n");
    }
}
