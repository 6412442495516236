//! A folder for a while, outside the workspace.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xtask_base::run::line;

/// Removed with all that is in it when this is dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Result<Self> {
        let made = line("mktemp --directory").read();
        let made = made.context("cannot make a temporary folder")?;
        Ok(Self(made.trim_end().into()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left lies where such things are swept away.
        let _ = fs::remove_dir_all(&self.0);
    }
}
