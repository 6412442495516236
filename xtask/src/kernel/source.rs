//! A series' source: which Debian package it is, and its tree, unpacked once.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context as _, Result};

use super::cache;
use crate::run::{cmd, line};
use crate::system;

/// The list of sources.
const SOURCES: &str = "kernel/sources";

/// A line of the list.
pub(super) struct Source {
    pub(super) series: String,
    package: String,
    version: String,
    pub(super) sha256: String,
}

impl Source {
    /// The source of a series.
    pub(super) fn of(series: &str) -> Result<Self> {
        let text = fs::read_to_string(SOURCES).with_context(|| format!("cannot read {SOURCES}"))?;
        let sources = parse(&text)?;
        let known: Vec<&str> = sources.iter().map(|source| &*source.series).collect();
        let known = known.join(", ");
        let found = sources.into_iter().find(|source| source.series == series);
        found.with_context(|| format!("{SOURCES} names no series {series:?}, but: {known}"))
    }

    /// The folder of this source in the cache.
    pub(super) fn home(&self) -> Result<PathBuf> {
        let name = format!("{}-{}", self.series, &self.sha256[..12]);
        let home = cache::root()?.join(name);
        fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        Ok(home)
    }

    /// The source tree, fetched and unpacked if it is not there. Wants the home's lock.
    pub(super) fn tree(&self, home: &Path) -> Result<PathBuf> {
        let tree = home.join("linux");
        if tree.exists() {
            return Ok(tree);
        }
        let package = self.fetch(home)?;
        println!("unpacking {}: about a minute", package.display());
        let scratch = tempfile::tempdir_in(home).context("no temporary folder")?;
        let name = format!("{}.tar.xz", self.package);
        // $1 package, $2 name of the archive in it, $3 where to.
        let unpack = r#"set -o pipefail
            dpkg-deb --fsys-tarfile "$1" | tar --extract --to-stdout "./usr/src/$2" |
                tar --extract --xz --strip-components=1 --directory="$3""#;
        cmd(["bash", "-c", unpack, "unpack"])
            .arg(&package)
            .arg(name)
            .arg(scratch.path())
            .read()
            .context("cannot unpack the kernel source")?;
        fs::rename(scratch.keep(), &tree).context("cannot put the source tree in its place")?;
        // What is left to read of it is unpacked now.
        fs::remove_file(&package).context("cannot remove the package")?;
        Ok(tree)
    }

    /// The package itself, of the right contents.
    fn fetch(&self, home: &Path) -> Result<PathBuf> {
        let Self {
            package, version, ..
        } = self;
        let name = format!("{package}_{}_all.deb", version.replace(':', "%3a"));
        let path = home.join(name);
        if !path.exists() {
            let asked = format!("{package}={version}");
            let download = || line("apt-get download").arg(&asked).dir(home);
            println!("$ {}", download().shown());
            if download().read().is_err() {
                // Perhaps only the lists are old, or none were ever fetched.
                system::apt_update()?;
                if let Err(error) = download().read() {
                    bail!("{}", self.moved_on(&error));
                }
            }
        }
        let sums = cache::sha256(std::slice::from_ref(&path))?;
        if sums.first() != Some(&self.sha256) {
            bail!(
                "{} has the SHA-256 {}, and {SOURCES} wants {}",
                path.display(),
                sums.join(""),
                self.sha256
            );
        }
        Ok(path)
    }

    /// What to say when the archive does not give the package.
    fn moved_on(&self, error: &anyhow::Error) -> String {
        let Self {
            package, version, ..
        } = self;
        let madison = line("apt-cache madison").arg(package).read();
        let offered = match madison.as_deref().unwrap_or_default().trim_end() {
            "" => "  nothing of that name".to_owned(),
            lines => lines.to_owned(),
        };
        format!(
            "apt-get does not give {package} {version}.\n\
             What this machine's sources offer:\n{offered}\n\
             If there is a newer version: put it into {SOURCES} with its hash (`apt-cache show {package}`).\n\
             {error:#}"
        )
    }
}

/// The lines of the list.
fn parse(text: &str) -> Result<Vec<Source>> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [series, package, version, sha256] = words[..] else {
                bail!("{SOURCES}: not four words: {line}");
            };
            if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                bail!("{SOURCES}: no SHA-256: {sha256}");
            }
            Ok(Source {
                series: series.to_owned(),
                package: package.to_owned(),
                version: version.to_owned(),
                sha256: sha256.to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_line_has_four_words_and_a_hash() {
        let hash = "0123456789abcdef".repeat(4);
        let parsed = parse(&format!("# series\n\n6.12 linux 6.12.1-1 {hash}\n")).unwrap();
        assert_eq!(parsed.len(), 1);
        assert_eq!(parsed[0].series, "6.12");
        assert!(parse("6.12 linux 6.12.1-1").is_err());
        assert!(parse("6.12 linux 6.12.1-1 abc").is_err());
    }
}
