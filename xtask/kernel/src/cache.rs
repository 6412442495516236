//! Where kernels are kept: outside the clone, named after what they are made from.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context as _, Result};
use rustix::fs::{flock, statvfs, FlockOperation};
use xtask_base::run::cmd;

/// The folder for all that is fetched and built.
pub(crate) fn root() -> Result<PathBuf> {
    let dir = xtask_base::workspace::cache_dir()?.join("kernels");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// Wants so many gigabytes to be free where a folder is.
pub(crate) fn ensure_room(dir: &Path, wanted: u64, what_for: &str) -> Result<()> {
    let cannot = || format!("cannot ask how much is free in {}", dir.display());
    let disk = statvfs(dir).with_context(cannot)?;
    let free = disk.f_bavail * disk.f_frsize / 1_000_000_000;
    if free < wanted {
        bail!(
            "{what_for} needs {wanted} GB, and {free} GB are free in {}",
            dir.display()
        );
    }
    Ok(())
}

/// Keeps other runs out of a folder until it is dropped.
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its lock")] File);

/// Waits for the lock of a folder, and says so if it has to.
pub(crate) fn lock(dir: &Path) -> Result<Lock> {
    let path = dir.join("lock");
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        println!(
            "another run is at work in {}: waiting for it",
            dir.display()
        );
        flock(&file, FlockOperation::LockExclusive)
            .with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(Lock(file))
}

/// SHA-256 of each file.
pub(crate) fn sha256(files: &[PathBuf]) -> Result<Vec<String>> {
    // Reads its standard input when it is given no file.
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let sums = cmd(["sha256sum", "--"]).args(files).read()?;
    let sums = sums.lines().map(|line| {
        let sum = line.split_whitespace().next();
        // A backslash in front says that the file's name is escaped.
        sum.unwrap_or_default().trim_start_matches('\\').to_owned()
    });
    Ok(sums.collect())
}

/// SHA-256 of a text.
pub(crate) fn sha256_of(text: &str) -> Result<String> {
    let mut file = tempfile::NamedTempFile::new().context("no temporary file")?;
    file.write_all(text.as_bytes())
        .context("cannot write a temporary file")?;
    let mut sums = sha256(&[file.path().to_owned()])?;
    sums.pop().context("sha256sum printed nothing")
}
