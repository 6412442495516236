//! What gcc with W=1, sparse and checkpatch say of a patch, and did not say
//! before it: the untouched tree is not clean either.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xtask_base::run::cmd;
use xtask_base::Flavour;

use crate::{config, make};

/// Compiles single files, in a build folder of its own, and remembers what was said.
pub(crate) struct Linter {
    tree: PathBuf,
    build: PathBuf,
    /// What was said of a file when it was last looked at, by kind.
    known: BTreeMap<(Kind, PathBuf), Vec<String>>,
    /// This kernel wants a newer sparse, and leaves it out.
    no_sparse: bool,
    /// What the patch touches.
    touched: Vec<PathBuf>,
    /// What it makes.
    made: Vec<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    W1,
    Sparse,
}

impl Kind {
    fn argument(self) -> &'static str {
        match self {
            Self::W1 => "W=1",
            Self::Sparse => "C=2",
        }
    }
}

impl Linter {
    /// Wants the tree without any patch.
    pub(crate) fn new(series: &str, home: &Path, tree: &Path) -> Result<Self> {
        let build = home.join("check-lint");
        config::configure(tree, &build, &config::fragments(series, Flavour::Plain))?;
        Ok(Self {
            tree: tree.to_owned(),
            build,
            known: BTreeMap::new(),
            no_sparse: false,
            touched: Vec::new(),
            made: Vec::new(),
        })
    }

    /// Notes what is said of C files before a patch changes them, and the rest of
    /// what it touches.
    pub(crate) fn look_before(&mut self, files: &[PathBuf], touched: &[PathBuf]) -> Result<()> {
        self.touched = touched.to_vec();
        self.made = files.to_vec();
        self.made.retain(|file| !self.tree.join(file).exists());
        for file in files {
            for kind in [Kind::W1, Kind::Sparse] {
                let key = (kind, file.clone());
                if !self.known.contains_key(&key) {
                    let said = self.look(kind, file)?;
                    self.known.insert(key, said);
                }
            }
        }
        Ok(())
    }

    /// Whether kbuild has left sparse out (scripts/checker-valid.sh): it says so, and
    /// goes on.
    pub(crate) fn has_no_sparse(&self) -> bool {
        self.no_sparse
    }

    /// gcc's warnings that are new; `None` where there is no file to compile.
    pub(crate) fn new_warnings(&mut self, files: &[PathBuf]) -> Result<Option<Vec<String>>> {
        self.fresh(Kind::W1, files)
    }

    /// The same for sparse.
    pub(crate) fn new_sparse(&mut self, files: &[PathBuf]) -> Result<Option<Vec<String>>> {
        self.fresh(Kind::Sparse, files)
    }

    fn fresh(&mut self, kind: Kind, files: &[PathBuf]) -> Result<Option<Vec<String>>> {
        if files.is_empty() {
            return Ok(None);
        }
        let mut fresh = Vec::new();
        for file in files {
            let said = self.look(kind, file)?;
            let before = self.known.insert((kind, file.clone()), said.clone());
            let mut new = beyond(&said, &before.unwrap_or_default());
            // Nothing was said of it before, nor of the headers that it includes.
            if self.made.contains(file) {
                new.retain(|line| is_of_any(line, &self.touched));
            }
            fresh.extend(new);
        }
        Ok(Some(fresh))
    }

    /// What is said of a file as it is now.
    fn look(&mut self, kind: Kind, file: &Path) -> Result<Vec<String>> {
        if !self.tree.join(file).exists() {
            return Ok(Vec::new());
        }
        let object = file.with_extension("o");
        // Only what is compiled says something.
        let _ = fs::remove_file(self.build.join(&object));
        let object = object.to_str().context("a file name that is no UTF-8")?;
        let said = make::object(&self.tree, &self.build, kind.argument(), object)?;
        self.no_sparse |= said.contains("sparse is not available or not up to date");
        let lines = said.lines();
        let marked = lines.filter(|line| line.contains("warning: ") || line.contains("error: "));
        Ok(marked.map(str::to_owned).collect())
    }
}

/// Whether a line names one of these files, as the place of what it says.
fn is_of_any(line: &str, files: &[PathBuf]) -> bool {
    let place = line.split(':').next().unwrap_or(line);
    files.iter().any(|file| Path::new(place).ends_with(file))
}

/// The C files of the kernel proper: what kbuild compiles.
pub(crate) fn kernel_c_files(files: &[PathBuf]) -> Vec<PathBuf> {
    let wanted = |file: &&PathBuf| {
        file.extension().is_some_and(|extension| extension == "c") && is_of_kernel(file)
    };
    files.iter().filter(wanted).cloned().collect()
}

/// Whether a kernel is another with other contents of some of these files.
pub(crate) fn is_compiled(files: &[PathBuf]) -> bool {
    files.iter().any(|file| is_of_kernel(file))
}

fn is_of_kernel(file: &Path) -> bool {
    let apart = [
        "tools",
        "samples",
        "scripts",
        "Documentation",
        "MAINTAINERS",
    ];
    !apart.iter().any(|folder| file.starts_with(folder))
}

/// What checkpatch has to say. It asks at every new file whether MAINTAINERS needs
/// a line: those of the series are in folders that MAINTAINERS gives to somebody. And
/// it looks for the commit of a `Fixes:` tag, in a history that is not here.
pub(crate) fn checkpatch(tree: &Path, patch: &Path) -> Result<Vec<String>> {
    let said = cmd(["perl", "scripts/checkpatch.pl"])
        .args(["--strict", "--no-signoff", "--terse", "--no-summary"])
        .args(["--ignore", "FILE_PATH_CHANGES,UNKNOWN_COMMIT_ID"])
        .arg(fs::canonicalize(patch)?)
        .dir(tree)
        .output()?;
    let both = [said.stdout, said.stderr].concat();
    let mut lines: Vec<String> = String::from_utf8_lossy(&both)
        .lines()
        .map(str::to_owned)
        .collect();
    if !said.status.success() && lines.is_empty() {
        lines.push(format!("checkpatch: {}", said.status));
    }
    Ok(lines)
}

/// What is in `now` and not, or less often, in `before`; line numbers do not count.
fn beyond(now: &[String], before: &[String]) -> Vec<String> {
    let mut left: Vec<String> = before.iter().map(|line| without_place(line)).collect();
    let mut new = Vec::new();
    for line in now {
        let message = without_place(line);
        match left.iter().position(|known| *known == message) {
            Some(at) => drop(left.swap_remove(at)),
            None => new.push(line.clone()),
        }
    }
    new
}

/// A message without its line and column.
fn without_place(line: &str) -> String {
    let parts = line.split(':');
    let number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    parts
        .filter(|part| !number(part))
        .collect::<Vec<_>>()
        .join(":")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{beyond, is_of_any, kernel_c_files};

    #[test]
    fn an_old_message_in_a_new_place_is_not_new() {
        let old = ["a.c:1:2: warning: one".to_owned()];
        let now = [
            "a.c:7:2: warning: one".to_owned(),
            "a.c:9:2: warning: one".to_owned(),
            "a.c:9:2: warning: two".to_owned(),
        ];
        assert_eq!(beyond(&now, &old), now[1..]);
        assert!(beyond(&old, &now).is_empty());
    }

    #[test]
    fn a_header_of_the_base_is_not_of_the_patch() {
        let touched = ["io_uring/new.c", "include/new.h"].map(PathBuf::from);
        let of_patch = |line| is_of_any(line, &touched);
        assert!(of_patch("/k/linux/io_uring/new.c:1:2: warning: one"));
        assert!(of_patch("include/new.h:3: warning: two"));
        assert!(!of_patch(
            "/k/linux/io_uring/old.h:138:29: warning: no newline"
        ));
        assert!(!of_patch("/k/linux/xio_uring/new.c:1:2: warning: one"));
    }

    #[test]
    fn programs_in_tools_are_not_the_kernel() {
        let files = ["fs/a.c", "fs/a.h", "tools/b.c"].map(PathBuf::from);
        assert_eq!(kernel_c_files(&files), [PathBuf::from("fs/a.c")]);
    }
}
