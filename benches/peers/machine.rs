//! The machine that all was measured on, for the report.

use std::fs;
use std::thread;

pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) kernel: String,
    /// How many tasks wanted a processor, in the minute before.
    pub(crate) load: String,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let unknown = || "unknown".to_owned();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = field(&cpuinfo, "model name");
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease");
        Self {
            cpu: cpu.map_or_else(unknown, str::to_owned),
            cpus: thread::available_parallelism().map_or(1, usize::from),
            kernel: release.map_or_else(|_| unknown(), |text| text.trim().to_owned()),
            load: load.split(' ').next().unwrap_or_default().to_owned(),
        }
    }

    /// The processor is a program, so that times say little.
    pub(crate) fn is_emulated(&self) -> bool {
        self.cpu.contains("TCG")
    }
}

/// A line `KEY: VALUE` of a file of /proc.
pub(crate) fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut lines = text.lines();
    lines.find_map(|line| {
        Some(
            line.strip_prefix(key)?
                .trim_start()
                .strip_prefix(':')?
                .trim(),
        )
    })
}

/// The same, where the value is a number of KiB.
pub(crate) fn kib(path: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    field(&text, key)?.strip_suffix(" kB")?.trim().parse().ok()
}
