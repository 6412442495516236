//! `cargo xtask kernel build`: kernels from Debian's source packages and the patches in
//! kernel/, kept outside the clone under a name made of everything they are made from.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xtask_base::run::line;
use xtask_base::{system, Flavour, VMLINUX};

use crate::source::Source;
use crate::{cache, config, make, patches};

/// To be counted up when this code makes another kernel of the same inputs.
const RECIPE: u32 = 1;

/// Gigabytes for what a build makes, and for the source if it is not there yet.
const ROOM: u64 = 5;

/// What is changed in the source.
#[derive(Clone, Copy)]
pub(crate) enum Change<'a> {
    None,
    Series,
    /// The series, and a further patch on top.
    Further(&'a Path),
}

/// Builds a kernel, if it is not in the cache; gives its image.
pub(crate) fn build(series: &str, flavour: Flavour) -> Result<PathBuf> {
    image(series, flavour, Change::Series)
}

/// The same of the source as it is, to compare with.
pub(crate) fn build_unpatched(series: &str, flavour: Flavour) -> Result<PathBuf> {
    image(series, flavour, Change::None)
}

/// Where the cache has a kernel, or will have it.
pub(crate) fn path(series: &str, flavour: Flavour) -> Result<PathBuf> {
    Recipe::of(series, flavour, Change::Series)?.image()
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
            Change::Series | Change::Further(_) => patches::of(series)?,
        };
        let mut inputs = inputs(&source, &patches, &config::fragments(series, flavour))?;
        if let Change::Further(fault) = change {
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

/// The same of any change.
pub(crate) fn image(series: &str, flavour: Flavour, change: Change<'_>) -> Result<PathBuf> {
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
        cache::ensure_room(&home, ROOM, "building a kernel")?;
    }
    let tree = recipe.source.tree(&home)?;
    let changed = patches::bring_to(&home, &recipe.patches)?;
    println!("{changed} source files changed since the last build");
    config::configure(&tree, &build, &config::fragments(series, flavour))?;
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
