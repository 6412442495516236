//! Steps on what people get: the library without native libraries, and the
//! package as published.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{bail, Context as _, Result};
use xtask_base::run::{cmd, line};
use xtask_base::workspace::{self, LIBRARY};

use crate::scratch::Scratch;

use super::Outcome::{self, Passed};

/// The library with BPF off must build where no libelf is, as on docs.rs.
pub(super) fn without_native_libraries() -> Result<Outcome> {
    let tree = line("cargo tree --no-default-features -e normal --prefix none -p")
        .arg(LIBRARY)
        .read()?;
    if let Some(found) = tree.lines().find(|line| line.starts_with("libbpf-sys ")) {
        bail!("{found} is a dependency even without default features");
    }
    println!("cargo tree --no-default-features -e normal: no libbpf-sys");
    // A folder of its own: nothing built with the libraries at hand is used.
    line("cargo check --lib --no-default-features --target-dir")
        .arg(workspace::target_dir()?.join("no-native"))
        .env("PKG_CONFIG", "/bin/false")
        .run()?;
    Ok(Passed)
}

/// The package builds by itself, away from the workspace, with no clang at hand.
pub(super) fn package() -> Result<Outcome> {
    let mut package = line("cargo package -p").arg(LIBRARY);
    let changes = line("git status --porcelain").read();
    if changes.is_ok_and(|changes| !changes.is_empty()) {
        println!("the working tree has changes that are not committed: they are packaged too");
        package = package.arg("--allow-dirty");
    }
    package.run()?;

    let target = workspace::target_dir()?;
    let name = format!("{LIBRARY}-{}", workspace::version()?);
    let scratch = Scratch::new()?;
    cmd(["tar", "-xzf"])
        .arg(target.join(format!("package/{name}.crate")))
        .arg("-C")
        .arg(scratch.path())
        .run()?;

    let traps = scratch.path().join("no-clang");
    let called = scratch.path().join("called");
    set_traps(&traps, &called)?;
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([traps].into_iter().chain(env::split_paths(&path)))
        .context("PATH cannot be extended")?;
    println!("(clang and its like are replaced by commands that fail)");
    for features in ["", "--no-default-features"] {
        let check = line("cargo check")
            .args(features.split_whitespace())
            .arg("--target-dir")
            .arg(workspace::root()?.join(&target).join("packaged"))
            .dir(&scratch.path().join(&name))
            .with_path(&path);
        check.run()?;
    }
    if let Ok(called) = fs::read_to_string(&called) {
        bail!("the build of the package called for:\n{called}");
    }
    Ok(Passed)
}

/// Puts commands into `folder` that note in `called` that they ran, and fail.
fn set_traps(folder: &Path, called: &Path) -> Result<()> {
    let problem = || format!("cannot write to {}", folder.display());
    fs::create_dir(folder).with_context(problem)?;
    let script = format!(
        "#!/bin/sh\necho \"$0 $*\" >>'{}'\nexit 127\n",
        called.display()
    );
    for tool in ["clang", "llvm-strip", "bpftool", "bindgen"] {
        for version in ["", "-14", "-19"] {
            let file = folder.join(format!("{tool}{version}"));
            fs::write(&file, &script).with_context(problem)?;
            fs::set_permissions(&file, Permissions::from_mode(0o755)).with_context(problem)?;
        }
    }
    Ok(())
}
