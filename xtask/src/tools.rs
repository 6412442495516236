//! Cargo's further commands, each of one pinned version: kept outside the clone, so
//! compiled once a machine.

use std::path::PathBuf;

use anyhow::Result;
use xtask_base::run::line;
use xtask_base::workspace;

/// The program of a crate; compiled if it is not there.
pub(crate) fn program(name: &str, version: &str) -> Result<PathBuf> {
    let root = workspace::cache_dir()?.join(format!("tools/{name}-{version}"));
    let program = root.join("bin").join(name);
    if !program.exists() {
        println!("{name} {version} is not here yet: compiling it takes some minutes, once");
        line(&format!(
            "cargo install --locked {name} --version {version} --root"
        ))
        .arg(&root)
        .run()?;
    }
    Ok(program)
}
