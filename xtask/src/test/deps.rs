//! Steps on what the workspace depends on, by cargo-deny and deny.toml.

use anyhow::Result;
use xtask_base::run::{cmd, line};

use super::Outcome::{self, NotRun, Passed};
use crate::tools;

/// The version of cargo-deny that this repository uses.
const CARGO_DENY: &str = "0.20.2";

pub(super) fn licences() -> Result<Outcome> {
    let deny = tools::program("cargo-deny", CARGO_DENY)?;
    cmd([deny])
        .args("check bans licenses sources".split(' '))
        .run()?;
    Ok(Passed)
}

/// Apart from the rest: it needs a database that is not on crates.io.
pub(super) fn advisories() -> Result<Outcome> {
    let deny = tools::program("cargo-deny", CARGO_DENY)?;
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
