//! `cargo xtask kernel`: kernels from Debian's source packages and the patches in
//! kernel/, kept outside the clone under a name made of everything they are made from.

pub(crate) mod apt;
pub(crate) mod cache;
mod check;
mod compare;
mod config;
mod faults;
mod lint;
mod make;
mod patches;
mod source;
mod view;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

pub(crate) use check::{check, Column};
pub(crate) use compare::compare;
pub(crate) use faults::faults;
pub(crate) use source::series;

use crate::run::line;
use crate::system;
use source::Source;

/// To be counted up when this code makes another kernel of the same inputs.
const RECIPE: u32 = 1;

/// Gigabytes for what a build makes, and for the source if it is not there yet.
const ROOM: u64 = 5;

/// The kernel as it was linked: of flavour kcore, beside the image.
pub(crate) const VMLINUX: &str = "vmlinux";

/// What a kernel is for.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Flavour {
    /// For numbers: no lock or memory checking.
    Plain,
    /// For truth: lockdep, KASAN, kmemleak and the like.
    Debug,
    /// For programs that read its memory: `/proc/kcore`, and vmlinux beside the image.
    Kcore,
}

impl Flavour {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Debug => "debug",
            Self::Kcore => "kcore",
        }
    }

    /// The configuration's fragments, in order: what all series share, and what is
    /// the series' own.
    fn fragments(self, series: &str) -> Vec<PathBuf> {
        let shared: &[&str] = match self {
            Self::Plain => &["kernel/config.plain"],
            Self::Debug => &["kernel/config.plain", "kernel/config.debug"],
            Self::Kcore => &["kernel/config.plain", "kernel/config.kcore"],
        };
        let own = Path::new("kernel").join(series).join("config");
        let shared = shared.iter().map(PathBuf::from);
        shared.chain(own.exists().then_some(own)).collect()
    }
}

/// What is changed in the source.
#[derive(Clone, Copy)]
enum Change<'a> {
    None,
    Series,
    /// The series, and a further patch on top.
    Fault(&'a Path),
}

/// Builds a kernel, if it is not in the cache; gives its image.
pub(crate) fn build(series: &str, flavour: Flavour) -> Result<PathBuf> {
    image(series, flavour, Change::Series)
}

/// The same of the source as it is, to compare with.
pub(crate) fn build_unpatched(series: &str, flavour: Flavour) -> Result<PathBuf> {
    image(series, flavour, Change::None)
}

/// Whether the cache has a kernel.
pub(crate) fn cached(series: &str, flavour: Flavour) -> Result<bool> {
    Ok(Recipe::of(series, flavour, Change::Series)?
        .image()?
        .exists())
}

/// How a kernel is made.
struct Recipe {
    source: Source,
    flavour: Flavour,
    patches: Vec<PathBuf>,
    /// Everything that it is made from, as a text.
    inputs: String,
}

impl Recipe {
    fn of(series: &str, flavour: Flavour, change: Change<'_>) -> Result<Self> {
        let source = Source::of(series)?;
        system::ensure_quietly(system::KERNEL)?;
        let mut patches = match change {
            Change::None => Vec::new(),
            Change::Series | Change::Fault(_) => patches::of(series)?,
        };
        let mut inputs = inputs(&source, &patches, &flavour.fragments(series))?;
        if let Change::Fault(fault) = change {
            let change = patches::change_of(fault)?;
            let _ = writeln!(inputs, "fault {}", cache::sha256_of(&change)?);
            patches.push(fault.to_owned());
        }
        Ok(Self {
            source,
            flavour,
            patches,
            inputs,
        })
    }

    /// Where the cache has it, or will.
    fn image(&self) -> Result<PathBuf> {
        let key = cache::sha256_of(&self.inputs)?;
        let (series, flavour) = (&self.source.series, self.flavour.name());
        let name = format!("{series}-{flavour}-{}", &key[..16]);
        Ok(cache::root()?.join("images").join(name).join("bzImage"))
    }
}

fn image(series: &str, flavour: Flavour, change: Change<'_>) -> Result<PathBuf> {
    let recipe = Recipe::of(series, flavour, change)?;
    let image = recipe.image()?;
    if image.exists() {
        return Ok(image);
    }

    let home = recipe.source.home()?;
    let _lock = cache::lock(&home)?;
    // The run that this one has waited for may have built it.
    if image.exists() {
        return Ok(image);
    }
    println!(
        "building {series}, flavour {}, {} patches",
        flavour.name(),
        recipe.patches.len()
    );
    let build = home.join(format!("build-{}", flavour.name()));
    if !build.exists() {
        system::ensure_room(&home, ROOM, "building a kernel")?;
    }
    let tree = recipe.source.tree(&home)?;
    let changed = patches::bring_to(&home, &recipe.patches)?;
    println!("{changed} source files changed since the last build");
    config::configure(&tree, &build, &flavour.fragments(series))?;
    let log = home.join(format!("build-{}.log", flavour.name()));
    make::run(&tree, &build, &["bzImage"], &log)?;
    let kept = image.parent().context("an image has a folder")?;
    keep(&build, kept, flavour, &recipe.inputs)?;
    Ok(image)
}

/// Everything that a kernel is made from, as a text.
fn inputs(source: &Source, patches: &[PathBuf], fragments: &[PathBuf]) -> Result<String> {
    let mut inputs = format!("recipe {RECIPE}\nsource {}\n", source.sha256);
    for patch in patches {
        // A word in a message, or a test, makes no other kernel.
        let change = patches::change_of(patch)?;
        if !change.is_empty() {
            let _ = writeln!(inputs, "patch {}", cache::sha256_of(&change)?);
        }
    }
    for (sum, file) in cache::sha256(fragments)?.iter().zip(fragments) {
        let name = file.file_name().unwrap_or_default();
        let _ = writeln!(inputs, "fragment {sum} {}", name.to_string_lossy());
    }
    for tool in ["gcc --version", "ld --version", "pahole --version"] {
        let version = line(tool).read()?;
        let _ = writeln!(
            inputs,
            "tool {}",
            version.lines().next().unwrap_or_default()
        );
    }
    Ok(inputs)
}

/// Puts what a build has made into the cache; all of it, or nothing.
fn keep(build: &Path, kept: &Path, flavour: Flavour, inputs: &str) -> Result<()> {
    let images = kept.parent().context("an image has a folder")?;
    fs::create_dir_all(images).with_context(|| format!("cannot make {}", images.display()))?;
    let scratch = tempfile::tempdir_in(images).context("no temporary folder")?;
    let debug_information = (flavour == Flavour::Kcore).then_some((VMLINUX, VMLINUX));
    let always = [
        ("arch/x86/boot/bzImage", "bzImage"),
        (".config", "config"),
        ("System.map", "System.map"),
    ];
    for (from, to) in always.into_iter().chain(debug_information) {
        fs::copy(build.join(from), scratch.path().join(to))
            .with_context(|| format!("cannot keep {from}"))?;
    }
    fs::write(scratch.path().join("made-from"), inputs)?;
    if kept.exists() {
        fs::remove_dir_all(kept).context("cannot remove an incomplete image")?;
    }
    fs::rename(scratch.keep(), kept).context("cannot put the image in its place")
}
