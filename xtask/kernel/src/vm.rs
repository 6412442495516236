//! `cargo xtask vm`: a command in a virtual machine with one of our kernels.
//! What talks to the machine is in xtask/vm, a package of its own: vmtest takes
//! minutes to compile, and only this command is to cost them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use xtask_base::run::{cmd, line, Cmd};
use xtask_base::Flavour;
use xtask_base::{system, workspace};

use crate::image;

/// The package.
pub(crate) const PACKAGE: &str = "xtask-vm";

/// What to boot, and what to run in it.
#[derive(clap::Args)]
pub(crate) struct Vm {
    /// A series that kernel/sources names; built if it is not in the cache.
    #[arg(long, value_name = "SERIES", required_unless_present = "image")]
    kernel: Option<String>,
    /// With debug, lockdep must be on at the end, too.
    #[arg(long, value_enum, default_value = "plain")]
    flavour: Flavour,
    /// A kernel of your own (bzImage): with 9p, virtio-pci and virtio-console built in.
    // Absolute before the current folder changes.
    #[arg(long, conflicts_with = "kernel", value_parser = absolute)]
    image: Option<PathBuf>,
    /// Arguments for the kernel.
    #[arg(long, allow_hyphen_values = true)]
    append: Option<String>,
    /// Processors of the machine [default: 2]
    #[arg(long)]
    cpus: Option<u8>,
    /// Memory of the machine, as QEMU takes it [default: 2G]
    #[arg(long)]
    memory: Option<String>,
    /// Seconds for boot and command [default: 900]
    #[arg(long, value_name = "SECONDS")]
    limit: Option<u32>,
    /// A clock that counts instructions, a nanosecond each: one processor, emulated.
    #[arg(long, conflicts_with = "cpus")]
    icount: bool,
    /// One word: a script for the shell. More words: a program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// The exit status if the kernel's log holds a warning or worse.
pub(crate) const SPLAT: i32 = 123;
/// The exit status when the time is up.
pub(crate) const TIME: i32 = 124;

impl Vm {
    /// A script to run with an image; the rest as usual for its flavour.
    pub(crate) fn new(image: &Path, flavour: Flavour, limit: u32, script: String) -> Self {
        // KASAN takes an eighth of the memory, and its quarantine as much again.
        let memory = (flavour == Flavour::Debug).then(|| "3G".to_owned());
        Self {
            kernel: None,
            flavour,
            image: Some(image.to_owned()),
            append: None,
            cpus: None,
            memory,
            limit: Some(limit),
            icount: false,
            command: vec![script],
        }
    }
}

/// Runs it; gives the exit status.
pub(crate) fn vm(vm: &Vm) -> Result<u8> {
    let status = Command::from(machine(vm)?).status();
    let status = status.context("cannot start the harness")?;
    // No code: it was ended by a signal, and the machine with it.
    Ok(status
        .code()
        .map_or(125, |code| u8::try_from(code).unwrap_or(u8::MAX)))
}

/// The command that boots the machine and runs what it is for.
pub(crate) fn machine(vm: &Vm) -> Result<Cmd> {
    system::ensure_quietly(system::VM)?;
    let image = match (&vm.image, &vm.kernel) {
        (Some(image), _) => image.clone(),
        (None, Some(series)) => image::build(series, vm.flavour)?,
        (None, None) => unreachable!("clap wants one of them"),
    };
    let mut machine = cmd([harness()?]).arg("--image").arg(image);
    let series = vm.kernel.iter().map(|series| format!("-{series}"));
    let log = format!("vm{}-{}.log", series.collect::<String>(), vm.flavour.name());
    machine = machine
        .arg("--kvm-cache")
        .arg(workspace::cache_dir()?.join("kvm"))
        .arg("--log")
        .arg(workspace::target_dir()?.join(log));
    if vm.flavour == Flavour::Debug {
        machine = machine.arg("--lockdep");
    }
    if vm.icount {
        machine = machine.args(["--icount", "--cpus=1"]);
    }
    let cpus = vm.cpus.map(|cpus| cpus.to_string());
    let limit = vm.limit.map(|limit| limit.to_string());
    for (option, value) in [
        ("--append", &vm.append),
        ("--cpus", &cpus),
        ("--memory", &vm.memory),
        ("--limit", &limit),
    ] {
        if let Some(value) = value {
            machine = machine.arg(format!("{option}={value}"));
        }
    }
    Ok(machine.arg("--").args(&vm.command))
}

/// A path for clap.
pub(crate) fn absolute(path: &str) -> std::io::Result<PathBuf> {
    std::path::absolute(path)
}

/// The program that runs machines; compiled if that is needed.
fn harness() -> Result<PathBuf> {
    let program = workspace::target_dir()?.join("debug").join(PACKAGE);
    if !program.exists() {
        eprintln!("compiling the harness for virtual machines: two minutes or so, once");
    }
    line("cargo build --quiet --package").arg(PACKAGE).read()?;
    Ok(Path::new(&workspace::root()?).join(program))
}
