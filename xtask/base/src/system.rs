//! What the machine must have besides Rust: found by trying it, installed with
//! apt-get where that is possible and allowed, explained where it is not.

mod needs;

use std::path::Path;

use anyhow::{bail, Result};

use crate::run::{cmd, line};

pub use needs::*;

/// Something that the machine must have.
pub struct Need {
    /// Debian's package.
    package: &'static str,
    /// What the package is for.
    why: &'static str,
    /// What to look for on other systems.
    elsewhere: &'static str,
    present: fn() -> bool,
}

/// Installs what is missing, or says what to install.
pub fn ensure<'a>(needs: impl IntoIterator<Item = &'a Need>) -> Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        println!("every package that is needed is here");
        return Ok(());
    }
    install(missing)
}

/// The same, with nothing to say where nothing is missing.
pub fn ensure_quietly(needs: &[Need]) -> Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    install(missing)
}

fn install(missing: Vec<&Need>) -> Result<()> {
    let Some(mut apt) = apt_get() else {
        bail!("{}", explain(&missing));
    };
    println!("this machine lacks, and apt-get will now install:");
    for need in &missing {
        println!("  {:<16} {}", need.package, need.why);
    }
    let options = ["install", "--yes", "--no-install-recommends"];
    let packages = missing.iter().map(|need| need.package);
    let install: Vec<&str> = apt.iter().copied().chain(options).chain(packages).collect();
    apt.push("update");
    cmd(apt).run()?;
    cmd(install).run()?;
    let still = self::missing(missing);
    if still.is_empty() {
        return Ok(());
    }
    bail!("installed, and still not usable: {}", names(&still));
}

/// Fetches apt's lists anew; does nothing where that cannot be done.
pub fn apt_update() -> Result<()> {
    match apt_get() {
        Some(mut apt) => {
            apt.push("update");
            cmd(apt).run()
        }
        None => Ok(()),
    }
}

fn missing<'a>(needs: impl IntoIterator<Item = &'a Need>) -> Vec<&'a Need> {
    needs.into_iter().filter(|need| !(need.present)()).collect()
}

fn names(needs: &[&Need]) -> String {
    let names: Vec<&str> = needs.iter().map(|need| need.package).collect();
    names.join(" ")
}

/// How to call apt-get with the rights to install; `None` where there is no way.
fn apt_get() -> Option<Vec<&'static str>> {
    let debian = Path::new("/etc/debian_version").exists();
    if !debian || !line("apt-get --version").succeeds() {
        return None;
    }
    // Through env, as sudo does not hand variables on.
    let quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
    if is_root() {
        Some(quiet.to_vec())
    } else if line("sudo -n true").succeeds() {
        Some(["sudo", "-n"].into_iter().chain(quiet).collect())
    } else {
        None
    }
}

/// Whether this process has user id 0.
pub fn is_root() -> bool {
    line("id -u").read().is_ok_and(|id| id.trim() == "0")
}

fn explain(missing: &[&Need]) -> String {
    let mut text = String::from(
        "this machine lacks packages, and they cannot be installed from here\n\
         (that takes Debian's apt-get, and root or a sudo that asks no password):\n\n",
    );
    for need in missing {
        text += &format!("  {:<16} {}\n", need.package, need.why);
        text += &format!("  {:<16}   elsewhere: {}\n", "", need.elsewhere);
    }
    text += "\nOn Debian and Ubuntu:  sudo apt-get install ";
    text + &names(missing)
}

/// Whether the C preprocessor finds a header.
fn header(name: &str) -> bool {
    line("cc -E -x c /dev/null -include").arg(name).succeeds()
}

/// pkg-config under the name by which builds will call it.
fn pkg_config(arguments: &str) -> bool {
    let program = std::env::var_os("PKG_CONFIG").unwrap_or("pkg-config".into());
    cmd([program]).args(arguments.split_whitespace()).succeeds()
}

/// One line on the machine, for reports.
pub fn describe() -> String {
    let say = |words: &str| {
        let said = line(words).read().unwrap_or_default();
        said.lines().next().unwrap_or("unknown").to_owned()
    };
    let user = if is_root() { "root" } else { "no root" };
    format!("{}, {}, {user}", say("uname -sr"), say("rustc --version"))
}
