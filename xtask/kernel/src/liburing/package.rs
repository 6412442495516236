//! The source package, fetched and built once, outside the clone.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context as _, Result};
use xtask_base::run::cmd;
use xtask_base::{system, workspace};

use super::list::{Source, LIST};
use crate::apt::Apt;
use crate::cache;

/// The folder with the programs, `NAME.t` each; built if they are not there.
pub(super) fn programs(source: &Source) -> Result<PathBuf> {
    let Source {
        version, sha256, ..
    } = source;
    let home = workspace::cache_dir()?.join("liburing");
    fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    let _lock = cache::lock(&home)?;
    let short = sha256.get(..12).unwrap_or_default();
    let built = home.join(format!("{version}-{short}"));
    if !built.exists() {
        system::ensure_quietly(system::KERNEL)?;
        system::ensure_quietly(system::LIBURING)?;
        let scratch = tempfile::tempdir_in(&home).context("no temporary folder")?;
        let description = fetch(source, &home, scratch.path())?;
        build(&description, scratch.path())?;
        fs::rename(scratch.keep(), &built).context("cannot put the programs in their place")?;
    }
    Ok(built.join("tree/test"))
}

/// Gives the .dsc file, whose contents are the right ones; what it names is beside it.
fn fetch(source: &Source, home: &Path, to: &Path) -> Result<PathBuf> {
    let Source {
        suite,
        package,
        version,
        sha256,
    } = source;
    let apt = Apt::of_sources(suite, home)?;
    let asked = format!("{package}={version}");
    let download = || {
        let download = apt.command("apt-get source --download-only --only-source");
        download.arg(&asked).dir(to)
    };
    println!("$ {}", download().shown());
    if download().read().is_err() {
        apt.update()?;
        download().read().with_context(|| {
            format!("apt-get does not give {asked}: if there is a newer one, change {LIST}")
        })?;
    }
    let description = to.join(format!("{package}_{version}.dsc"));
    let sums = cache::sha256(std::slice::from_ref(&description))?;
    if sums.first() != Some(sha256) {
        let sums = sums.join("");
        bail!("the .dsc file of {asked} has the SHA-256 {sums}, and {LIST} wants {sha256}");
    }
    Ok(description)
}

/// Unpacks it, which checks what the .dsc file says of the others, and makes the
/// programs.
fn build(description: &Path, to: &Path) -> Result<()> {
    let (tree, log) = (to.join("tree"), to.join("log"));
    println!("building its programs: two minutes or so, once");
    // $1 .dsc file, $2 where to.
    let script = r#"set -e
        dpkg-source --extract "$1" "$2"
        cd "$2"
        ./configure
        make -j"$(nproc)" -C src
        make -j"$(nproc)" -C test"#;
    let said = cmd(["bash", "-c", script, "build"])
        .arg(description)
        .arg(&tree);
    let said = said.merged().output()?;
    fs::write(&log, &said.stdout).context("cannot write the log")?;
    if !said.status.success() {
        let text = String::from_utf8_lossy(&said.stdout);
        let lines: Vec<&str> = text.lines().collect();
        let end = lines[lines.len().saturating_sub(20)..].join("\n");
        bail!("liburing does not build:\n{end}");
    }
    Ok(())
}
