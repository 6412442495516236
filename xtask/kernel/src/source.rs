//! A series' source: which Debian package it is, and its tree, unpacked once.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context as _, Result};
use xtask_base::run::cmd;

use crate::apt::Apt;
use crate::cache;

/// The list of sources.
const SOURCES: &str = "kernel/sources";

/// A line of the list.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) series: String,
    /// `None`: one that the machine's apt follows.
    suite: Option<String>,
    package: String,
    version: String,
    pub(crate) sha256: String,
}

impl Source {
    /// The source of a series.
    pub(crate) fn of(series: &str) -> Result<Self> {
        let sources = all()?;
        let known: Vec<&str> = sources.iter().map(|source| &*source.series).collect();
        let known = known.join(", ");
        let found = sources.into_iter().find(|source| source.series == series);
        found.with_context(|| format!("{SOURCES} names no series {series:?}, but: {known}"))
    }

    /// The folder of this source in the cache.
    pub(crate) fn home(&self) -> Result<PathBuf> {
        let name = format!("{}-{}", self.series, &self.sha256[..12]);
        let home = cache::root()?.join(name);
        fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        Ok(home)
    }

    /// The source tree, fetched and unpacked if it is not there. Wants the home's lock.
    pub(crate) fn tree(&self, home: &Path) -> Result<PathBuf> {
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
            let apt = Apt::of(self.suite.as_deref(), home)?;
            let asked = format!("{package}={version}");
            let download = || apt.command("apt-get download").arg(&asked).dir(home);
            println!("$ {}", download().shown());
            if download().read().is_err() {
                // Perhaps only the lists are old, or none were ever fetched.
                apt.update()?;
                if let Err(error) = download().read() {
                    bail!("{}", self.moved_on(&apt, &error));
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
    fn moved_on(&self, apt: &Apt, error: &anyhow::Error) -> String {
        let Self {
            package, version, ..
        } = self;
        let offered = apt.offered(package).unwrap_or_else(|| {
            let others = apt.kernels().join(", ");
            format!("  nothing of that name; kernel sources are: {others}")
        });
        let mut text = format!(
            "apt-get does not give {package} {version}.\n\
             What its sources offer:\n{offered}\n\
             The one line to change is this one, in {SOURCES}:\n  {self}\n"
        );
        if let Some((version, sha256)) = apt.newest(package) {
            let newest = Self {
                version,
                sha256,
                ..self.clone()
            };
            let _ = writeln!(text, "With what is offered it would be:\n  {newest}");
        }
        text += "A line may also name another suite (second word) or package (third).\n";
        text + &format!("{error:#}")
    }
}

impl fmt::Display for Source {
    /// As the list has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suite = self.suite.as_deref().unwrap_or("-");
        let Self {
            series,
            package,
            version,
            sha256,
            ..
        } = self;
        write!(f, "{series}  {suite}  {package}  {version}  {sha256}")
    }
}

/// The series that the list names, in its order.
pub(crate) fn series() -> Result<Vec<String>> {
    Ok(all()?.into_iter().map(|source| source.series).collect())
}

fn all() -> Result<Vec<Source>> {
    parse(&fs::read_to_string(SOURCES).with_context(|| format!("cannot read {SOURCES}"))?)
}

/// The lines of the list.
fn parse(text: &str) -> Result<Vec<Source>> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [series, suite, package, version, sha256] = words[..] else {
                bail!("{SOURCES}: not five words: {line}");
            };
            if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                bail!("{SOURCES}: no SHA-256: {sha256}");
            }
            Ok(Source {
                series: series.to_owned(),
                suite: (suite != "-").then(|| suite.to_owned()),
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
    fn a_line_has_five_words_and_a_hash() {
        let hash = "0123456789abcdef".repeat(4);
        let parsed = parse(&format!("# series\n\n6.12 - linux 6.12.1-1 {hash}\n")).unwrap();
        assert_eq!(parsed.len(), 1);
        assert_eq!(parsed[0].series, "6.12");
        assert_eq!(parsed[0].suite, None);
        let other = parse(&format!("7.2 sid linux 7.2.13-1 {hash}")).unwrap();
        assert_eq!(other[0].suite.as_deref(), Some("sid"));
        assert!(parse("6.12 linux 6.12.1-1 {hash}").is_err());
        assert!(parse("6.12 - linux 6.12.1-1 abc").is_err());
    }

    #[test]
    fn a_line_is_shown_as_it_is_written() {
        let line = format!("7.2  sid  linux  7.2.13-1  {}", "a".repeat(64));
        assert_eq!(parse(&line).unwrap()[0].to_string(), line);
    }
}
