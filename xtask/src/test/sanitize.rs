//! Steps that run tests under a watcher: AddressSanitizer and Miri.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use xtask_base::run::{line, Cmd};
use xtask_base::workspace;

use super::suites::{run_integration, run_kit, LIMIT_FACTOR};
use super::Outcome::{self, NotRun, Passed};

const RUSTFLAGS: &str = "-Zsanitizer=address";

/// Trials that AddressSanitizer adds nothing to: they go on until chance has shown
/// enough, for which it makes the code too slow, or wait for minutes; or they count
/// what it does itself. The code that they run others run, too.
const LEFT_OUT: [&str; 4] = ["torn::", "epoll_torn::", "long_hold::", "warm::"];

/// Unit and integration tests with AddressSanitizer in the Rust code.
pub(super) fn address() -> Result<Outcome> {
    let target = workspace::target_dir()?.join("asan");
    fs::create_dir_all(&target).with_context(|| format!("cannot make {}", target.display()))?;
    let leaks = match finds_leaks(&target)? {
        Ok(()) => "detect_leaks=1",
        Err(reason) => {
            println!("leaks are NOT looked for: LeakSanitizer does not work here: {reason}");
            "detect_leaks=0"
        }
    };
    let host = workspace::host()?;
    let adapt = |cmd: Cmd| {
        cmd.arg("--target")
            .arg(&host)
            .arg("--target-dir")
            .arg(&target)
            // The sanitizer is an unstable option of a stable compiler.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", RUSTFLAGS)
            // The observer (src/sys/observer.rs) runs in the memory of its
            // parent, where both would take frames from one fake stack.
            .env(
                "ASAN_OPTIONS",
                format!("{leaks}:detect_stack_use_after_return=0"),
            )
            .env("URING_SUITE_NO_LOCKED", "1")
            .env(LIMIT_FACTOR, "4")
    };
    adapt(line("cargo test --lib")).run()?;
    run_kit(adapt)?;
    println!("left out here: trials of {}", LEFT_OUT.join(", "));
    run_integration(adapt, &LEFT_OUT)?;
    Ok(Passed)
}

/// Whether a program that leaks is caught on this machine, and why not.
fn finds_leaks(scratch: &Path) -> Result<Result<(), String>> {
    let source = scratch.join("leak.rs");
    let program = scratch.join("leak");
    let leak = "fn main() { std::mem::forget(std::hint::black_box(Box::new([1u8; 64]))); }\n";
    fs::write(&source, leak).with_context(|| format!("cannot write {}", source.display()))?;
    line("rustc --edition 2021")
        .args([RUSTFLAGS, "-o"])
        .args([&program, &source])
        .env("RUSTC_BOOTSTRAP", "1")
        .run()?;
    let output = Command::new(fs::canonicalize(&program)?)
        .env("ASAN_OPTIONS", "detect_leaks=1")
        .output()
        .context("cannot start the program that leaks")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("detected memory leaks") {
        return Ok(Ok(()));
    }
    let why = said.lines().find(|line| line.contains("LeakSanitizer"));
    let why = why.unwrap_or("it did not see a leak made for it");
    Ok(Err(why.trim().to_owned()))
}

/// The library's unit tests under Miri, without the backends that call the kernel.
pub(super) fn miri() -> Result<Outcome> {
    if !line("rustup run nightly cargo miri --version").succeeds() {
        return Ok(NotRun("no nightly toolchain with Miri is installed".into()));
    }
    line("rustup run nightly cargo miri test --lib --no-default-features record")
        .arg("--target-dir")
        .arg(workspace::target_dir()?.join("miri"))
        .env("MIRIFLAGS", "-Zmiri-disable-isolation")
        .run()?;
    Ok(Passed)
}
