//! Allocation failures: the n-th allocation that a closure makes the kernel do
//! fails. Needs CONFIG_FAULT_INJECTION with CONFIG_FAILSLAB, and its knobs in
//! debugfs: without `ignore-gfp-wait = N` no allocation that may sleep ever fails.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::kmem::mount_debugfs;
use crate::sys;

const DEBUG: &str = "/sys/kernel/debug";

/// Allocation failures on this machine, ready to be asked for.
#[derive(Debug)]
pub struct Faults {
    /// That kmalloc and the slab caches can fail is a must; pages may.
    _ready: (),
}

/// What became of one failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injected {
    /// An allocation failed.
    Yes,
    /// There were fewer allocations than that.
    No,
}

impl Faults {
    /// Sets the knobs, for good. They concern nobody who does not ask.
    ///
    /// # Errors
    /// `Unsupported` with the reason.
    pub fn new() -> io::Result<Self> {
        let lacks = |what: &str| {
            let text = format!("this kernel injects no faults: {what}");
            io::Error::new(io::ErrorKind::Unsupported, text)
        };
        if !Path::new("/proc/self/fail-nth").exists() {
            return Err(lacks("no /proc/PID/fail-nth"));
        }
        mount_debugfs().map_err(|e| lacks(&format!("debugfs: {e}")))?;
        let mut knobs = 0;
        for (knob, value) in [
            ("failslab/ignore-gfp-wait", "N"),
            ("failslab/verbose", "0"),
            ("fail_page_alloc/ignore-gfp-wait", "N"),
            ("fail_page_alloc/min-order", "0"),
            ("fail_page_alloc/verbose", "0"),
        ] {
            knobs += u32::from(fs::write(format!("{DEBUG}/{knob}"), value).is_ok());
        }
        match knobs {
            2 | 5 => Ok(Self { _ready: () }),
            _ => Err(lacks("its knobs are not all in debugfs")),
        }
    }

    /// Runs `body` with its `nth` allocation (counted from 1) failing, in this
    /// thread only.
    ///
    /// # Errors
    /// Those of /proc/self/task/TID/fail-nth: none are expected.
    pub fn fail_nth<T>(&self, nth: u32, body: impl FnOnce() -> T) -> io::Result<(T, Injected)> {
        let path = format!("/proc/self/task/{}/fail-nth", sys::thread_id());
        // Opened before it counts: to read and write it takes no allocation.
        let file = File::options().read(true).write(true).open(path)?;
        file.write_all_at(nth.to_string().as_bytes(), 0)?;
        let result = body();
        let mut left = [0; 16];
        let n = file.read_at(&mut left, 0)?;
        file.write_all_at(b"0", 0)?;
        let injected = match left[..n].trim_ascii() {
            b"0" => Injected::Yes,
            _ => Injected::No,
        };
        Ok((result, injected))
    }
}
