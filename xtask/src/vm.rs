//! Virtual machines for the commands here, by `cargo xtask vm`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use xtask_base::Flavour;

use crate::kernel;

/// What to boot, and what to run in it.
pub(crate) struct Vm {
    image: PathBuf,
    flavour: Flavour,
    /// Seconds for boot and command.
    limit: u32,
    script: String,
    /// As QEMU takes it.
    memory: Option<String>,
}

impl Vm {
    /// A script to run with an image; the rest as usual for its flavour.
    pub(crate) fn new(image: &Path, flavour: Flavour, limit: u32, script: String) -> Self {
        Self {
            image: image.to_owned(),
            flavour,
            limit,
            script,
            memory: None,
        }
    }

    /// The same with so much memory, as QEMU takes it.
    pub(crate) fn with_memory(self, memory: &str) -> Self {
        let memory = Some(memory.to_owned());
        Self { memory, ..self }
    }
}

/// Runs it; gives the exit status.
pub(crate) fn vm(vm: &Vm) -> Result<u8> {
    let boot = kernel::command("vm --image")?
        .arg(&vm.image)
        .args(["--flavour", vm.flavour.name()])
        .args(["--limit", &vm.limit.to_string()]);
    let boot = match &vm.memory {
        Some(memory) => boot.args(["--memory", memory]),
        None => boot,
    };
    let status = Command::from(boot.args(["--", &vm.script])).status();
    let status = status.context("cannot start the machine")?;
    // No code: it was ended by a signal, and the machine with it.
    let code = status.code().unwrap_or(125);
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}
