//! Steps on what people get: the library without native libraries, and the
//! package as published.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{bail, Context as _, Result};
use xtask_base::run::{cmd, line};
use xtask_base::system;
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
    run_readme(scratch.path(), &name)?;
    Ok(Passed)
}

/// A new crate that depends on the package, with the programs of README.md as they
/// stand: they compile, and run if this is root.
fn run_readme(scratch: &Path, package: &str) -> Result<()> {
    let readme = fs::read_to_string("README.md").context("cannot read README.md")?;
    let programs = rust_programs(&readme);
    if programs.len() < 2 {
        bail!("README.md has {} programs, not two or more", programs.len());
    }
    let user = scratch.join("user");
    let bins = user.join("src/bin");
    let problem = || format!("cannot write to {}", user.display());
    fs::create_dir_all(&bins).with_context(problem)?;
    let manifest = format!(
        "[package]\nname = \"user\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\n\
         [dependencies]\nio-uring = \"0.7\"\nlibc = \"0.2\"\n\
         {LIBRARY} = {{ path = \"../{package}\", features = [\"io-uring\"] }}\n\n[workspace]\n"
    );
    fs::write(user.join("Cargo.toml"), manifest).with_context(problem)?;
    for (number, program) in (1..).zip(programs) {
        let file = bins.join(format!("readme{number}.rs"));
        fs::write(file, program).with_context(problem)?;
        let what = match system::is_root() {
            true => "run",
            false => "build",
        };
        line(&format!("cargo {what} --bin readme{number} --target-dir"))
            .arg(
                workspace::root()?
                    .join(workspace::target_dir()?)
                    .join("packaged"),
            )
            .dir(&user)
            .run()?;
    }
    Ok(())
}

/// The blocks of Rust that have a `main`.
fn rust_programs(readme: &str) -> Vec<String> {
    let blocks = readme.split("```rust").skip(1);
    let code = blocks.filter_map(|block| block.split_once('\n')?.1.split("```").next());
    let programs = code.filter(|code| code.contains("fn main("));
    programs.map(str::to_owned).collect()
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

#[cfg(test)]
mod tests {
    use super::rust_programs;

    #[test]
    fn programs_are_blocks_with_a_main() {
        let readme = "a\n```rust,no_run\nfn main() {}\n```\nb\n```rust\nlet x = 1;\n```\n\
            ```sh\nfn main()\n```\n";
        assert_eq!(rust_programs(readme), ["fn main() {}\n"]);
    }
}
