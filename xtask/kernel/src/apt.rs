//! Debian's packages: by the machine's own apt, or, from a suite that it does not
//! follow, by lists of our own. The machine's configuration is never changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context as _, Result};
use xtask_base::run::{line, Cmd};
use xtask_base::system;

/// Debian's own keys, where its package of them puts them.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What apt is to look into.
pub(crate) enum Apt {
    /// The lists of the machine.
    Machine,
    /// Lists of our own; the file configures apt for them.
    Suite(PathBuf),
}

impl Apt {
    /// The machine's own lists, or those of another suite of the same mirror, to be
    /// kept in a folder; they may not have been fetched yet.
    pub(crate) fn of(suite: Option<&str>, dir: &Path) -> Result<Self> {
        let Some(suite) = suite else {
            return Ok(Self::Machine);
        };
        Self::lists("deb", suite, dir)
    }

    /// Lists of the source packages of a suite, to be kept in a folder.
    pub(crate) fn of_sources(suite: &str, dir: &Path) -> Result<Self> {
        Self::lists("deb-src", suite, dir)
    }

    fn lists(kind: &str, suite: &str, dir: &Path) -> Result<Self> {
        let dir = dir.join(format!("apt-{suite}"));
        for part in ["lists/partial", "cache/archives/partial"] {
            let part = dir.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        }
        let sources = format!("{}\n", entry(kind, &mirror()?, suite));
        fs::write(dir.join("sources.list"), sources).context("cannot write sources.list")?;
        let config = dir.join("apt.conf");
        fs::write(&config, configuration(&dir)).context("cannot write apt.conf")?;
        Ok(Self::Suite(config))
    }

    /// A command of apt: its words after the options that say where to look.
    pub(crate) fn command(&self, words: &str) -> Cmd {
        let mut words = words.split_whitespace();
        let command = line(words.next().unwrap_or_default());
        match self {
            Self::Machine => command,
            Self::Suite(config) => command.arg("--config-file").arg(config),
        }
        .args(words)
    }

    /// Fetches the lists anew.
    pub(crate) fn update(&self) -> Result<()> {
        match self {
            Self::Machine => system::apt_update(),
            Self::Suite(_) => self.command("apt-get update").run(),
        }
    }

    /// What there is of a package, for a person: `None` if nothing.
    pub(crate) fn offered(&self, package: &str) -> Option<String> {
        let said = self.command("apt-cache madison").arg(package).read();
        let said = said.unwrap_or_default();
        Some(said.trim_end().to_owned()).filter(|said| !said.is_empty())
    }

    /// Version and SHA-256 of the newest package of a name.
    pub(crate) fn newest(&self, package: &str) -> Option<(String, String)> {
        let shown = self
            .command("apt-cache show --no-all-versions")
            .arg(package);
        let shown = fields(&shown.read().ok()?);
        let field = |name| shown.get(name).cloned();
        Some((field("Version")?, field("SHA256")?))
    }

    /// The names of all packages of kernel sources.
    pub(crate) fn kernels(&self) -> Vec<String> {
        let search = "apt-cache search --names-only ^linux-source-[0-9.]+$";
        let found = self.command(search).read().unwrap_or_default();
        let names = found.lines().filter_map(|line| line.split(' ').next());
        names.map(str::to_owned).collect()
    }
}

/// Lists and packages in the folder, and the rest as the machine has it.
fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "Dir::Etc::sourcelist \"{dir}/sources.list\";\n\
         Dir::Etc::sourceparts \"-\";\n\
         Dir::State::lists \"{dir}/lists\";\n\
         Dir::Cache \"{dir}/cache\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
         APT::Sandbox::User \"root\";\n"
    )
}

/// A line of sources.list.
fn entry(kind: &str, mirror: &str, suite: &str) -> String {
    // Where they are not, apt takes the keys that it trusts for everything.
    let keys = match Path::new(KEYS).exists() {
        true => format!("[signed-by={KEYS}] "),
        false => String::new(),
    };
    format!("{kind} {keys}{mirror} {suite} main")
}

/// Where this machine has Debian from, whatever form its sources are written in.
fn mirror() -> Result<String> {
    let known = || -> Result<Option<String>> {
        let targets = line("apt-get indextargets").arg("Identifier: Packages");
        Ok(mirror_of(&targets.read()?))
    };
    if let Some(mirror) = known()? {
        return Ok(mirror);
    }
    // Whose a mirror is stands in the lists, and none may have been fetched.
    system::apt_update()?;
    match known()? {
        Some(mirror) => Ok(mirror),
        None => bail!("no source of this machine's apt is Debian's: fetch its lists (apt-get update), or name one"),
    }
}

/// The mirror of Debian itself, among what apt has lists of: not of its security
/// updates, which are elsewhere and have no other suites.
fn mirror_of(targets: &str) -> Option<String> {
    let targets = targets.split("\n\n").map(fields);
    let is = |target: &BTreeMap<String, String>, name, value| {
        target.get(name).is_some_and(|found| found == value)
    };
    targets
        .filter(|target| is(target, "Origin", "Debian") && is(target, "Label", "Debian"))
        .find_map(|mut target| target.remove("Repo-URI"))
}

/// The first of each field of a paragraph.
fn fields(paragraph: &str) -> BTreeMap<String, String> {
    let fields = paragraph.lines().filter_map(|line| line.split_once(": "));
    let mut found = BTreeMap::new();
    for (name, value) in fields {
        found.entry(name.to_owned()).or_insert(value.to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{configuration, entry, mirror_of};

    #[test]
    fn the_mirror_is_that_of_debian_itself() {
        let other = "Label: Debian-Security\nOrigin: Debian\nRepo-URI: file:/s/\n";
        let third = "Label: Debian\nOrigin: Somebody\nRepo-URI: file:/t/\n";
        let debian = "Label: Debian\nOrigin: Debian\nRepo-URI: file:/d/\n";
        let targets = [other, third, debian].join("\n");
        assert_eq!(mirror_of(&targets).as_deref(), Some("file:/d/"));
        assert_eq!(mirror_of(&[other, third].join("\n")), None);
    }

    #[test]
    fn nothing_of_the_machine_is_written_to() {
        let configuration = configuration("/x".as_ref());
        for line in configuration.lines().filter(|line| line.starts_with("Dir")) {
            assert!(line.ends_with("\"-\";") || line.contains("\"/x/"), "{line}");
        }
        let entry = entry("deb", "file:/d/", "sid");
        assert!(entry.starts_with("deb ") && entry.ends_with("file:/d/ sid main"));
    }
}
