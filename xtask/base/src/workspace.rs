//! Where things are, as cargo tells it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::run::line;

/// The library's package.
pub const LIBRARY: &str = "uring-bpf-iter";

/// Makes the workspace root the current folder: every path is relative to it.
pub fn enter() -> Result<()> {
    let root = find()?;
    env::set_current_dir(&root).with_context(|| format!("cannot enter {}", root.display()))
}

/// The workspace root, from wherever a person stands.
pub fn find() -> Result<PathBuf> {
    // Cargo sets it for what it runs: right also when the clone has moved.
    let member = env::var_os("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into());
    let member = Path::new(&member);
    let root = member
        .ancestors()
        .find(|dir| dir.join("Cargo.lock").exists());
    let root = root.with_context(|| format!("no Cargo.lock in or above {}", member.display()))?;
    Ok(root.to_owned())
}

/// The workspace root, which has been entered.
pub fn root() -> Result<PathBuf> {
    env::current_dir().context("the current folder is gone")
}

/// The folders of all members, relative to the root.
pub fn members() -> Result<Vec<PathBuf>> {
    let metadata = metadata("--no-deps")?;
    let root = root()?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let folders = packages.map(|package| {
        let manifest = Path::new(text(package, "manifest_path")?);
        let folder = manifest.parent().context("a manifest without a folder")?;
        Ok(folder.strip_prefix(&root).unwrap_or(folder).to_owned())
    });
    folders.collect()
}

/// The Rust sources in a folder of the workspace, sorted; without what builds leave.
pub fn sources_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let cannot = || format!("cannot read {}", folder.display());
    for entry in fs::read_dir(folder).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        let path = path.strip_prefix(".").map_or(path.clone(), Path::to_owned);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            // Cargo marks its folders, whatever they are called.
            if !name.starts_with('.') && !path.join("CACHEDIR.TAG").exists() {
                found.extend(sources_in(&path)?);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The folder for build products; relative where it lies in the workspace.
pub fn target_dir() -> Result<PathBuf> {
    let metadata = metadata("--no-deps")?;
    let dir = text(&metadata, "target_directory")?;
    Ok(Path::new(dir)
        .strip_prefix(root()?)
        .unwrap_or(Path::new(dir))
        .to_owned())
}

/// The program of the library's tests of this name, compiled, as cargo names it.
pub fn test_program(name: &str) -> Result<PathBuf> {
    let said = line("cargo test --no-run --message-format=json --test").arg(name);
    program_in(&said.read()?, name, "test")
}

/// The program of the library's unit tests, built.
pub fn unit_tests() -> Result<PathBuf> {
    let said = line("cargo test --no-run --message-format=json --lib");
    program_in(&said.read()?, &LIBRARY.replace('-', "_"), "lib")
}

/// The program of the library's benchmarks of this name, optimised.
pub fn bench_program(name: &str) -> Result<PathBuf> {
    let said = line("cargo bench --no-run --message-format=json --bench").arg(name);
    program_in(&said.read()?, name, "bench")
}

fn program_in(said: &str, name: &str, kind: &str) -> Result<PathBuf> {
    let messages = said.lines().map(serde_json::from_str::<Value>);
    let found = messages.filter_map(Result::ok).find_map(|message| {
        let target = &message["target"];
        let it = target["name"] == name && target["kind"][0] == kind;
        it.then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    found.with_context(|| format!("cargo names no program of the tests {name:?}"))
}

/// The folder for what is kept between clones: `XDG_CACHE_HOME` or what stands for it.
pub fn cache_dir() -> Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty());
    let cache = match cache {
        Some(cache) => PathBuf::from(cache),
        None => {
            let home = env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?;
            PathBuf::from(home).join(".cache")
        }
    };
    Ok(cache.join(LIBRARY))
}

/// The library's version.
pub fn version() -> Result<String> {
    field_of(&metadata("--no-deps")?, LIBRARY, "version")
}

/// The oldest Rust that the library promises to build with.
pub fn msrv() -> Result<String> {
    field_of(&metadata("--no-deps")?, LIBRARY, "rust_version")
}

/// The library's features that do not bring this one with them, and are not it.
pub fn features_without(feature: &str) -> Result<Vec<String>> {
    let features = features_of(&metadata("--no-deps")?)?;
    Ok(without(&features, feature))
}

/// The library's features, each with what it turns on.
fn features_of(metadata: &Value) -> Result<BTreeMap<String, Vec<String>>> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let mut library = packages.filter(|package| package["name"] == LIBRARY);
    let features = library.next().map(|package| package["features"].clone());
    let features = features.with_context(|| format!("{LIBRARY} is not in the workspace"))?;
    serde_json::from_value(features).context("`cargo metadata` gives no features")
}

fn without(features: &BTreeMap<String, Vec<String>>, feature: &str) -> Vec<String> {
    fn brings(all: &BTreeMap<String, Vec<String>>, from: &str, wanted: &str) -> bool {
        let on = all.get(from).into_iter().flatten();
        from == wanted || on.into_iter().any(|next| brings(all, next, wanted))
    }
    let names = features.keys();
    let names = names.filter(|name| !brings(features, name, feature));
    names.cloned().collect()
}

/// The folder of a dependency's source.
pub fn source_of(package: &str) -> Result<PathBuf> {
    let metadata = metadata(&format!("--filter-platform {}", host()?))?;
    let manifest = field_of(&metadata, package, "manifest_path")?;
    let dir = Path::new(&manifest).parent();
    Ok(dir.context("a manifest without a folder")?.to_owned())
}

/// The target triple of this machine.
pub fn host() -> Result<String> {
    let version = line("rustc -vV").read()?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` names no host")?.to_owned())
}

fn metadata(how: &str) -> Result<Value> {
    let json = line("cargo metadata --format-version 1")
        .args(how.split_whitespace())
        .read()?;
    serde_json::from_str(&json).context("`cargo metadata` printed no JSON")
}

fn field_of(metadata: &Value, package: &str, field: &str) -> Result<String> {
    let packages = metadata["packages"].as_array();
    let found = packages
        .into_iter()
        .flatten()
        .find(|candidate| candidate["name"] == package);
    let found = found.with_context(|| format!("package {package} is not in the workspace"))?;
    text(found, field).map(str::to_owned)
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    let text = value[field].as_str();
    text.with_context(|| format!("`cargo metadata` gives no {field}"))
}

#[cfg(test)]
mod tests {
    use super::without;

    #[test]
    fn features_that_bring_another_are_left_out() {
        let features = [
            ("a", vec!["b", "dep:x"]),
            ("b", vec!["c"]),
            ("c", vec![]),
            ("d", vec![]),
        ];
        let features = features.map(|(name, on)| {
            let on = on.into_iter().map(str::to_owned).collect();
            (name.to_owned(), on)
        });
        assert_eq!(without(&features.into(), "c"), ["d"]);
    }
}
