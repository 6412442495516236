//! Sums by user, pinned and charged: the end of `uringctl bufs`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use uring_bpf_iter::{Charged, Ring};

use crate::text::{count, human};

/// Sums by user.
#[derive(Default)]
pub(crate) struct Totals {
    users: BTreeMap<u32, User>,
}

#[derive(Default)]
struct User {
    rings: usize,
    pinned: u64,
    /// All that the kernel charges to the user; `None` if no ring says it.
    charged: Option<u64>,
    /// True if a ring says that it is exempt.
    exempt: bool,
    /// The soft limit of the first holder, `Some(None)` for unlimited.
    limit: Option<Option<u64>>,
}

impl Totals {
    pub(crate) fn add(&mut self, ring: &Ring) {
        let owner = ring.owner();
        let uid = match ring.charged {
            Some(Charged::User { uid, .. }) => uid,
            _ => ring.creator_uid.unwrap_or(owner.uid),
        };
        let user = self.users.entry(uid).or_default();
        user.rings += 1;
        user.pinned += ring.pinned.map_or(0, |pinned| pinned.bytes);
        user.limit = user.limit.or_else(|| memlock_limit(owner.pid));
        match ring.charged {
            Some(Charged::User { locked_bytes, .. }) => user.charged = Some(locked_bytes),
            Some(_) => user.exempt = true,
            None => {}
        }
    }

    pub(crate) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        for (uid, user) in &self.users {
            let limit = match user.limit {
                Some(Some(limit)) => format!("RLIMIT_MEMLOCK {}", human(limit)),
                Some(None) => "RLIMIT_MEMLOCK unlimited".into(),
                None => "RLIMIT_MEMLOCK not readable".into(),
            };
            let charged = match (user.charged, user.exempt) {
                (Some(bytes), _) => format!("{} charged to the user, {limit}", human(bytes)),
                (None, true) => "not charged to RLIMIT_MEMLOCK (CAP_IPC_LOCK)".into(),
                (None, false) => format!("charge not shown by this backend, {limit}"),
            };
            writeln!(
                out,
                "uid {uid}: {}, {} pinned; {charged}",
                count(user.rings, "ring"),
                human(user.pinned),
            )?;
        }
        Ok(())
    }
}

/// The soft RLIMIT_MEMLOCK of a process in bytes, `Some(None)` for unlimited;
/// not from the /proc of another pid namespace.
fn memlock_limit(pid: u32) -> Option<Option<u64>> {
    let own = std::fs::read_link("/proc/self").ok()?;
    if own.as_os_str() != std::process::id().to_string().as_str() {
        return None;
    }
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(None),
        bytes => bytes.parse().ok().map(Some),
    }
}
