//! Steps that read the sources: format, lints, documentation, BPF objects.

use anyhow::{bail, Result};
use xtask_base::run::{cmd, line};

use super::Outcome::{self, NotRun, Passed};
use crate::api::{self, Compared};
use crate::{bpf, kernel};

/// The library's feature sets besides the default: BPF off and on, serde on.
const FEATURE_SETS: &[&str] = &[
    "--no-default-features",
    "--no-default-features --features serde",
    "--features serde",
    "--no-default-features --features io-uring",
];

pub(super) fn fmt() -> Result<Outcome> {
    line("cargo fmt --all --check").run()?;
    Ok(Passed)
}

pub(super) fn clang_format() -> Result<Outcome> {
    let mut sources = bpf::in_bpf(".c")?;
    sources.extend(bpf::in_bpf(".h")?);
    if sources.is_empty() {
        bail!("bpf/ holds no *.c and no *.h");
    }
    cmd(["clang-format-19", "--dry-run", "-Werror"])
        .args(sources)
        .run()?;
    Ok(Passed)
}

pub(super) fn bpf() -> Result<Outcome> {
    bpf::check()?;
    Ok(Passed)
}

/// The series of kernel patches differ from each other as they are meant to.
pub(super) fn series() -> Result<Outcome> {
    kernel::command("kernel compare")?.run()?;
    Ok(Passed)
}

/// Also the gate for the oldest Rust: `incompatible_msrv` is denied in Cargo.toml.
pub(super) fn clippy() -> Result<Outcome> {
    line("cargo clippy --workspace --exclude xtask-vm --all-targets -- -D warnings").run()?;
    for features in FEATURE_SETS {
        line("cargo clippy -p uring-bpf-iter --lib")
            .args(features.split_whitespace())
            .args(["--", "-D", "warnings"])
            .run()?;
    }
    Ok(Passed)
}

pub(super) fn api() -> Result<Outcome> {
    match api::compare()? {
        Compared::Same => Ok(Passed),
        Compared::NotMade(why) => Ok(NotRun(why)),
        Compared::Different(how) => bail!(how),
    }
}

pub(super) fn doc() -> Result<Outcome> {
    for what in ["--workspace --exclude xtask-vm", "--no-default-features"] {
        line("cargo doc --no-deps")
            .args(what.split_whitespace())
            .env("RUSTDOCFLAGS", "-D warnings")
            .run()?;
    }
    Ok(Passed)
}
