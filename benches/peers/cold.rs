//! A cold cache: memory larger than all caches is read before each look.

use std::fs;
use std::hint::black_box;

use crate::machine::Machine;

const LINE: usize = 64;

pub(crate) struct Cold {
    /// Bytes of the largest cache, or why there is none.
    cache: Result<usize, String>,
    memory: Vec<u8>,
}

impl Cold {
    pub(crate) fn new(machine: &Machine) -> Self {
        let cache = match machine.is_emulated() {
            true => Err("an emulated processor has no caches".to_owned()),
            false => largest_cache(),
        };
        let memory = Vec::new();
        Self { cache, memory }
    }

    pub(crate) fn why_not(&self) -> Option<String> {
        self.cache.clone().err()
    }

    /// Writes and reads twice as much as the largest cache holds.
    pub(crate) fn evict(&mut self) {
        let bytes = 2 * self.cache.as_ref().map_or(0, |bytes| *bytes);
        // Written once: pages that were never written are all the same one.
        self.memory.resize(bytes, 1);
        let sum = |sum: u64, line: &[u8]| sum + u64::from(line[0]);
        black_box(self.memory.chunks(LINE).fold(0, sum));
    }
}

/// As the kernel knows it, of the first processor.
fn largest_cache() -> Result<usize, String> {
    let size = |index: u32| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size");
        let text = fs::read_to_string(path).ok()?;
        let kib: usize = text.trim().strip_suffix('K')?.parse().ok()?;
        Some(kib * 1024)
    };
    let largest = (0..8).filter_map(size).max();
    largest.ok_or_else(|| "the kernel does not say how large the caches are".to_owned())
}
