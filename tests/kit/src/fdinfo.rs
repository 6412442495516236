//! What /proc/PID/fdinfo/FD says about registered buffers: an oracle that
//! belongs to neither the kit nor the crate under test, for quiet rings. The
//! kernel only tries uring_lock and leaves the list out when it is taken.

use std::fs;
use std::io;
use std::os::fd::RawFd;

/// Address and length of each slot, `None` for an empty one.
pub type UserBufs = Vec<Option<(u64, u64)>>;

/// One reading. `None`: the kernel left the list out, because uring_lock was
/// taken.
///
/// # Errors
/// ENOENT, EACCES from procfs; `InvalidData` for text that is not understood.
pub fn user_bufs(pid: u32, fd: RawFd) -> io::Result<Option<UserBufs>> {
    let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}"))?;
    let bad = |line: &str| io::Error::new(io::ErrorKind::InvalidData, format!("fdinfo: {line:?}"));
    let mut lines = text.lines();
    let Some(count) = lines.find_map(|line| line.strip_prefix("UserBufs:")) else {
        return Ok(None);
    };
    let count: usize = count.trim().parse().map_err(|_| bad(count))?;
    let mut bufs = Vec::with_capacity(count);
    let mut lines = lines.take(count).peekable();
    // Up to 6.12 the count stands there all the same.
    if lines.peek().is_some_and(|line| *line == "PollList:") {
        return Ok(None);
    }
    for line in lines {
        let parsed = slot(line).ok_or_else(|| bad(line))?;
        bufs.push(parsed);
    }
    if bufs.len() != count {
        return Err(bad("the list of buffers ends early"));
    }
    Ok(Some(bufs))
}

/// One line: `    3: 0x7f0012340000/4096`, or `    3: <none>` (6.13), or the
/// kernel's dummy buffer (before 6.13), whose address is no user address.
fn slot(line: &str) -> Option<Option<(u64, u64)>> {
    let (index, value) = line.split_once(':')?;
    index.trim().parse::<u32>().ok()?;
    let Some((addr, len)) = value.trim().split_once('/') else {
        return (value.trim() == "<none>").then_some(None);
    };
    let addr = u64::from_str_radix(addr.strip_prefix("0x")?, 16).ok()?;
    let len = len.parse().ok()?;
    // Address 0 with a length: a buffer of the kernel's own.
    Some(((addr, len) != (0, 0) && addr != u64::MAX).then_some((addr, len)))
}

#[cfg(test)]
mod tests {
    use super::slot;

    #[test]
    fn slots_of_old_and_new_kernels() {
        assert_eq!(
            slot("    3: 0x7f0012340000/4096"),
            Some(Some((0x7f00_1234_0000, 4096)))
        );
        assert_eq!(slot("16383: <none>"), Some(None));
        assert_eq!(slot("    0: 0xffffffffffffffff/1"), Some(None));
        assert_eq!(slot("PollList:"), None);
    }
}
