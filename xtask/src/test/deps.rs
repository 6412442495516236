//! Steps on what the workspace depends on, by cargo-deny and deny.toml.

use std::path::PathBuf;

use anyhow::Result;
use xtask_base::run::{cmd, line};
use xtask_base::workspace;

use super::Outcome::{self, NotRun, Passed};

/// The version of cargo-deny that this repository uses.
const CARGO_DENY: &str = "0.20.2";

pub(super) fn licences() -> Result<Outcome> {
    let deny = cargo_deny()?;
    cmd([deny])
        .args("check bans licenses sources".split(' '))
        .run()?;
    Ok(Passed)
}

/// Apart from the rest: it needs a database that is not on crates.io.
pub(super) fn advisories() -> Result<Outcome> {
    let deny = cargo_deny()?;
    let fetch = line("timeout 120").arg(&deny).args(["fetch", "db"]);
    if let Err(error) = fetch.run() {
        println!("{error:#}");
        return Ok(NotRun("the database cannot be fetched from here".into()));
    }
    cmd([deny])
        .args("check --disable-fetch advisories".split(' '))
        .run()?;
    Ok(Passed)
}

/// The path of cargo-deny: kept outside the clone, so compiled once a machine.
fn cargo_deny() -> Result<PathBuf> {
    let root = workspace::cache_dir()?.join(format!("tools/cargo-deny-{CARGO_DENY}"));
    let program = root.join("bin/cargo-deny");
    if !program.exists() {
        println!("cargo-deny {CARGO_DENY} is not here yet: compiling it takes some minutes, once");
        line(&format!(
            "cargo install --locked cargo-deny --version {CARGO_DENY} --root"
        ))
        .arg(&root)
        .run()?;
    }
    Ok(program)
}
