//! Steps that run the workspace's own tests, or build what only runs elsewhere.

use anyhow::Result;
use xtask_base::run::{line, Cmd};
use xtask_base::{system, workspace};

use super::Outcome::{self, NotRun, Passed};
use crate::results;

/// The variable with a factor for the time limits of trials (tests/suite/limits.rs).
pub(super) const LIMIT_FACTOR: &str = "URING_SUITE_LIMIT_FACTOR";

/// A test that has not ended after this long is stuck.
const LIMIT: &str = "timeout --verbose --kill-after=10 1200";

pub(super) fn unit() -> Result<Outcome> {
    line("cargo test --workspace --exclude xtask-vm --lib --bins --examples").run()?;
    line("cargo test --workspace --exclude xtask-vm --doc").run()?;
    Ok(Passed)
}

/// The package that is left out elsewhere, as it takes minutes to compile.
pub(super) fn harness() -> Result<Outcome> {
    line("cargo clippy -p xtask-vm --all-targets -- -D warnings").run()?;
    line("cargo test -p xtask-vm").run()?;
    Ok(Passed)
}

pub(super) fn no_features() -> Result<Outcome> {
    line("cargo test --lib --no-default-features").run()?;
    Ok(Passed)
}

/// The oracles of the integration tests, tested by themselves.
pub(super) fn kit() -> Result<Outcome> {
    run_kit(|cmd| cmd)?;
    Ok(Passed)
}

/// The test kit's tests, by a cargo command that `adapt` has changed.
pub(super) fn run_kit(adapt: impl Fn(Cmd) -> Cmd) -> Result<()> {
    let tests = line(&format!("{LIMIT} cargo test -p uring-testkit --test"));
    adapt(tests.arg("*")).run()
}

pub(super) fn integration() -> Result<Outcome> {
    let results = results::fresh("host")?;
    run_integration(|cmd| cmd.env(results::VARIABLE, &results), &[])?;
    Ok(Passed)
}

/// The integration tests, by cargo commands that `adapt` has changed, without those
/// trials whose names contain one of `left_out`.
pub(super) fn run_integration(adapt: impl Fn(Cmd) -> Cmd, left_out: &[&str]) -> Result<()> {
    if !system::is_root() {
        println!("NOT ROOT: tests that load BPF programs will fail. Run this as root.");
    }
    // Cargo builds no binaries of a package that is only depended on.
    adapt(line("cargo build -p uring-testkit -p uring-tools --bins")).run()?;
    adapt(line("cargo build --examples")).run()?;
    let tests = adapt(line(&format!("{LIMIT} cargo test --test integration")));
    let skips = left_out.iter().flat_map(|name| ["--skip", name]);
    tests.arg("--").args(skips).run()
}

/// Not for numbers: each candidate reads once, on little, and is checked.
pub(super) fn bench() -> Result<Outcome> {
    line(&format!("{LIMIT} cargo test --bench peers")).run()?;
    Ok(Passed)
}

/// The promise of `rust-version`, if that toolchain is here.
pub(super) fn msrv() -> Result<Outcome> {
    let msrv = workspace::msrv()?;
    if !line(&format!("rustup run {msrv} rustc --version")).succeeds() {
        return Ok(NotRun(format!(
            "Rust {msrv} is not installed (clippy's incompatible_msrv stands in)"
        )));
    }
    let target = workspace::target_dir()?.join("msrv");
    for features in ["", "--no-default-features", "--features serde"] {
        line(&format!(
            "rustup run {msrv} cargo check -p uring-bpf-iter --lib"
        ))
        .args(features.split_whitespace())
        .arg("--target-dir")
        .arg(&target)
        .run()?;
    }
    Ok(Passed)
}
