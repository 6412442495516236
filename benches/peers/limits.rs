//! What a machine may not have enough of: descriptors, memory.

use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};

use crate::machine;

/// What the benchmarks have open beside.
const SPARE: u64 = 200;

/// Raises the limit of descriptors so far that `wanted` more can be opened, or
/// says why not.
pub(crate) fn descriptors(wanted: usize) -> Result<(), String> {
    let wanted = wanted as u64 + SPARE;
    let now = getrlimit(Resource::Nofile);
    if now.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let more = Rlimit {
        current: Some(wanted),
        maximum: now.maximum.map(|maximum| maximum.max(wanted)),
    };
    setrlimit(Resource::Nofile, more).map_err(|e| {
        let limit = now.maximum.map_or(0, |maximum| maximum);
        format!("RLIMIT_NOFILE is {limit} here ({e})")
    })
}

/// The largest power of two of bytes up to `wanted` of which this machine has
/// three times as much to spare.
pub(crate) fn memory(wanted: usize) -> usize {
    let available = machine::kib("/proc/meminfo", "MemAvailable").unwrap_or(0) * 1024;
    let mut bytes = wanted;
    while bytes as u64 * 3 > available && bytes > 1 << 20 {
        bytes /= 2;
    }
    bytes
}
