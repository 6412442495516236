//! The BPF objects in bpf/: committed, so that no one who builds the library
//! needs clang; made here, by one pinned compiler, so that anyone can check them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context as _, Result};
use xtask_base::run::{cmd, line};
use xtask_base::system;
use xtask_base::workspace;

use crate::scratch::Scratch;

/// The compiler of the committed objects, as `clang-19 --version` begins.
/// Another build of clang may well give other bytes.
const CLANG: &str = "Debian clang version 19.1.7 (3~deb12u1)";

/// Rebuilds every object in place.
pub(crate) fn build() -> Result<()> {
    system::ensure(system::BPF)?;
    if let Some(warning) = other_clang()? {
        println!("warning: {warning}");
    }
    for source in sources()? {
        compile(&source, &object_of(&source))?;
    }
    Ok(())
}

/// Builds every object in another place and compares it with the committed one.
pub(crate) fn check() -> Result<()> {
    system::ensure(system::BPF)?;
    let scratch = Scratch::new()?;
    let sources = sources()?;
    let mut wrong = Vec::new();
    for source in &sources {
        let committed = object_of(source);
        let fresh = scratch
            .path()
            .join(committed.file_name().unwrap_or_default());
        compile(source, &fresh)?;
        let fresh = fs::read(&fresh).context("the compiler left no object")?;
        match fs::read(&committed) {
            Ok(bytes) if bytes == fresh => println!("{}: the same", committed.display()),
            Ok(_) => wrong.push(format!("{} differs", committed.display())),
            Err(error) => wrong.push(format!("{}: {error}", committed.display())),
        }
    }
    for object in in_bpf(".bpf.o")? {
        if !sources.iter().any(|source| object_of(source) == object) {
            wrong.push(format!("{} has no source", object.display()));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let mut message = format!(
        "bpf/ does not hold what its sources give:\n  {}\n\
         Run `cargo xtask bpf` and commit the objects.",
        wrong.join("\n  ")
    );
    if let Some(warning) = other_clang()? {
        message += &format!("\nBut first: {warning}");
    }
    bail!(message);
}

/// What to say if this machine's clang is not the pinned one.
fn other_clang() -> Result<Option<String>> {
    let version = line("clang-19 --version").read()?;
    let found = version.lines().next().unwrap_or_default();
    Ok((found != CLANG).then(|| {
        format!(
            "the committed objects come from \"{CLANG}\",\n\
             and this machine has \"{found}\": the bytes may differ by that alone."
        )
    }))
}

/// Compiles one program to an object that says nothing of the machine.
fn compile(source: &Path, object: &Path) -> Result<()> {
    let root = workspace::root()?;
    // bpf_helpers.h and its like: of the very libbpf that loads the object.
    let libbpf = workspace::source_of("libbpf-sys")?.join("libbpf/src");
    line("clang-19 -target bpf -mcpu=v3 -O2 -g -std=gnu11 -Wall -Wextra -Werror -nostdinc")
        .arg(format!("-ffile-prefix-map={}=.", root.display()))
        .arg(format!("-ffile-prefix-map={}=libbpf", libbpf.display()))
        .args(["-I", "bpf", "-isystem"])
        .arg(&libbpf)
        .arg("-c")
        .arg(source)
        .arg("-o")
        .arg(object)
        .run()?;
    // DWARF goes, BTF stays.
    cmd(["llvm-strip-19", "-g"]).arg(object).run()
}

fn object_of(source: &Path) -> PathBuf {
    source.with_extension("o")
}

fn sources() -> Result<Vec<PathBuf>> {
    let sources = in_bpf(".bpf.c")?;
    if sources.is_empty() {
        bail!("bpf/ holds no *.bpf.c");
    }
    Ok(sources)
}

/// The files in bpf/ with this ending, sorted.
pub(crate) fn in_bpf(ending: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("bpf").context("cannot list bpf/")? {
        let path = entry.context("cannot list bpf/")?.path();
        if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
