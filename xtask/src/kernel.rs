//! The door to xtask/kernel: the commands that build, check or boot kernels. They
//! are a package of their own, so that only those compile it who need it.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use xtask_base::run::{cmd, line, Cmd};
use xtask_base::{workspace, Flavour};

/// The package.
const PACKAGE: &str = "xtask-kernel";

/// The commands that are its own.
const COMMANDS: [&str; 4] = ["kernel", "vm", "soak", "liburing"];

/// Hands a command line on if it begins with a command of that package, or asks for
/// help with one. Does not come back then, but with an error.
pub(crate) fn take_over(words: &[OsString]) -> Result<()> {
    if !is_own(words) {
        return Ok(());
    }
    // A path in the words is relative to the folder that a person is in.
    let here = env::current_dir().context("the current folder is gone")?;
    workspace::enter()?;
    let program = program()?;
    let error = Command::new(&program).args(words).current_dir(here).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}

fn is_own(words: &[OsString]) -> bool {
    let command = match words {
        [help, command, ..] if help == "help" => command,
        [command, ..] => command,
        [] => return false,
    };
    COMMANDS.iter().any(|own| command == own)
}

/// The program, absolute; compiled if that is needed. Asked for once: cargo would
/// wait for what the steps of a test compile.
fn program() -> Result<PathBuf> {
    static PROGRAM: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut known = PROGRAM.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(program) = &*known {
        return Ok(program.clone());
    }
    let program = workspace::target_dir()?.join("debug").join(PACKAGE);
    if !program.exists() {
        eprintln!("compiling what builds and boots kernels: some seconds, once");
    }
    line("cargo build --quiet --package").arg(PACKAGE).read()?;
    Ok(known.insert(workspace::root()?.join(program)).clone())
}

/// A command of it, as a person may type it.
pub(crate) fn command(words: &str) -> Result<Cmd> {
    let program = program()?;
    let root = workspace::root()?;
    let shown = program.strip_prefix(root).unwrap_or(&program);
    Ok(cmd([shown]).args(words.split_whitespace()))
}

/// Builds a kernel, if it is not in the cache; gives its image.
pub(crate) fn build(series: &str, flavour: Flavour) -> Result<PathBuf> {
    let build = command("kernel build --flavour")?
        .arg(flavour.name())
        .arg(series);
    build.last_line().map(PathBuf::from)
}

/// Whether the cache has a kernel.
pub(crate) fn cached(series: &str, flavour: Flavour) -> Result<bool> {
    let path = command("kernel path --flavour")?
        .arg(flavour.name())
        .arg(series);
    let said = path.read()?;
    Ok(said
        .lines()
        .last()
        .is_some_and(|path| Path::new(path).exists()))
}

/// The series that kernel/sources names, in its order.
pub(crate) fn series() -> Result<Vec<String>> {
    let said = command("kernel series")?.read()?;
    Ok(said.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::is_own;

    #[test]
    fn command_lines_are_told_by_their_first_words() {
        let own = |line: &str| {
            let words: Vec<_> = line.split_whitespace().map(Into::into).collect();
            is_own(&words)
        };
        for line in ["kernel build 6.12", "help vm", "soak", "liburing --help"] {
            assert!(own(line), "{line}");
        }
        for line in ["", "demo --kernel 6.12", "help", "test --kernel vm"] {
            assert!(!own(line), "{line}");
        }
    }
}
