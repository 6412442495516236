//! What the kernel says about its memory: pinned pages, page frames, slabs and
//! kmemleak. All of it is the machine's, not the process's: whoever compares two
//! looks must be alone.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::buf::invalid;
use crate::sys::{self, page_size};

const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";

/// Pages that are pinned for longer than a moment (FOLL_PIN): those of
/// registered buffers, by the counters of /proc/vmstat.
///
/// # Errors
/// EACCES without root; `InvalidData` on a kernel that does not count them.
pub fn pinned_pages() -> io::Result<i64> {
    // Each CPU counts for itself until somebody asks.
    fs::write("/proc/sys/vm/stat_refresh", "1")?;
    let text = fs::read_to_string("/proc/vmstat")?;
    let count = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let value = lines.find(|(name, _)| *name == key)?.1;
        value.parse::<i64>().ok()
    };
    match (count("nr_foll_pin_acquired"), count("nr_foll_pin_released")) {
        (Some(acquired), Some(released)) => Ok(acquired - released),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "/proc/vmstat counts no pins",
        )),
    }
}

/// Waits until so many pages are pinned; returns how many are in the end.
///
/// # Errors
/// Those of [`pinned_pages`].
pub fn settled_pins(wanted: i64, limit: Duration) -> io::Result<i64> {
    let start = Instant::now();
    loop {
        let pins = pinned_pages()?;
        if pins == wanted || start.elapsed() > limit {
            return Ok(pins);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The page frame of each base page that the range touches in this process, by
/// /proc/self/pagemap; `None` for a page that is not there.
///
/// # Errors
/// EPERM where the kernel hides the numbers (no CAP_SYS_ADMIN).
pub fn page_frames(addr: u64, len: u64) -> io::Result<Vec<Option<u64>>> {
    const PRESENT: u64 = 1 << 63;
    const FRAME: u64 = (1 << 55) - 1;
    if len == 0 {
        return Err(invalid("an empty range has no pages"));
    }
    let page = page_size() as u64;
    let (first, last) = (addr / page, (addr + len - 1) / page);
    let mut bytes = vec![0; 8 * (last - first + 1) as usize];
    File::open("/proc/self/pagemap")?.read_exact_at(&mut bytes, 8 * first)?;
    let mut frames = Vec::new();
    for chunk in bytes.chunks(8) {
        let entry = u64::from_ne_bytes(chunk.try_into().expect("eight bytes"));
        match entry & FRAME {
            _ if entry & PRESENT == 0 => frames.push(None),
            0 => return Err(io::Error::from_raw_os_error(libc::EPERM)),
            frame => frames.push(Some(frame)),
        }
    }
    Ok(frames)
}

/// Whether the kernel has KASAN, which keeps what is freed in a quarantine: its
/// slabs say nothing then.
///
/// # Errors
/// ENOENT on a kernel without /proc/kallsyms.
pub fn has_kasan() -> io::Result<bool> {
    let symbols = fs::read_to_string("/proc/kallsyms")?;
    let mut names = symbols.lines().filter_map(|line| line.split(' ').nth(2));
    Ok(names.any(|name| name == "kasan_report"))
}

/// Objects in use of every slab cache, by /proc/slabinfo, which counts slabs that
/// a CPU keeps for itself as full: they are taken back first.
///
/// # Errors
/// ENOENT on a kernel without CONFIG_SLUB_DEBUG, EACCES without root.
pub fn slab_objects() -> io::Result<BTreeMap<String, u64>> {
    for cache in fs::read_dir("/sys/kernel/slab")? {
        fs::write(cache?.path().join("shrink"), "1")?;
    }
    let text = fs::read_to_string("/proc/slabinfo")?;
    let cache = |line: &str| {
        let mut fields = line.split_whitespace();
        let name = fields.next()?;
        Some((name.to_owned(), fields.next()?.parse().ok()?))
    };
    // Two lines of heading.
    Ok(text.lines().skip(2).filter_map(cache).collect())
}

/// The caches that hold more objects than `before`, by more than `slack`.
///
/// # Errors
/// Those of [`slab_objects`].
pub fn grown_slabs(
    before: &BTreeMap<String, u64>,
    slack: u64,
) -> io::Result<BTreeMap<String, u64>> {
    let grown = |(name, now): (String, u64)| {
        let more = now.saturating_sub(before.get(&name).copied().unwrap_or(0));
        (more > slack).then_some((name, more))
    };
    Ok(slab_objects()?.into_iter().filter_map(grown).collect())
}

/// Makes sure that debugfs is where it usually is.
///
/// # Errors
/// ENODEV on a kernel without it; EPERM without root.
pub fn mount_debugfs() -> io::Result<()> {
    if Path::new("/sys/kernel/debug/bdi").exists() || Path::new(KMEMLEAK).exists() {
        return Ok(());
    }
    match sys::mount_debugfs() {
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        other => other,
    }
}

/// Whether this kernel has kmemleak, and it has not given up.
pub fn has_kmemleak() -> bool {
    File::open(KMEMLEAK).is_ok()
}

/// Lets kmemleak look for memory that nothing points to, and returns its report
/// of what threads from number `first` on have allocated: empty if there is none.
///
/// It suspects no object that is younger than five seconds, nor one that it has
/// not seen in a scan before, so this takes six seconds and two scans: minutes in
/// an emulated machine.
///
/// # Errors
/// ENOENT without kmemleak; EPERM if it has given up.
pub fn leaks(first: u32) -> io::Result<String> {
    thread::sleep(Duration::from_secs(6));
    fs::write(KMEMLEAK, "scan")?;
    fs::write(KMEMLEAK, "scan")?;
    Ok(by_threads(&fs::read_to_string(KMEMLEAK)?, first))
}

/// The objects of a report whose second line names such a thread.
fn by_threads(report: &str, first: u32) -> String {
    const OBJECT: &str = "unreferenced object";
    let by = |object: &&str| {
        let pid = object.split_once(", pid ").map(|(_, rest)| rest);
        let pid = pid.and_then(|rest| rest.split(',').next()?.parse::<u32>().ok());
        pid.is_none_or(|pid| pid >= first)
    };
    let objects = report.split(OBJECT).skip(1).filter(by);
    objects.map(|object| format!("{OBJECT}{object}")).collect()
}

#[cfg(test)]
mod tests {
    use super::by_threads;

    #[test]
    fn a_report_by_threads() {
        let one = "unreferenced object 0xff (size 8):\n  comm \"a, pid\", pid 7, jiffies 1\n";
        let two = "unreferenced object 0xfe (size 8):\n  comm \"b\", pid 9, jiffies 1\n  x\n";
        let report = format!("{one}{two}");
        assert_eq!(by_threads(&report, 1), report);
        assert_eq!(by_threads(&report, 8), two);
        assert_eq!(by_threads(&report, 10), "");
        assert_eq!(by_threads("", 1), "");
    }
}
