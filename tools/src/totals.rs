//! Sums by user, pinned and charged: the end of `uringctl bufs`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use uring_bpf_iter::{Charged, Ring};

use crate::process::memlock_limit;
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
    /// The soft limit of each process that holds such a ring, in bytes, none for
    /// unlimited; `None` for one that could not be read.
    limits: BTreeMap<u32, Option<Option<u64>>>,
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
        for holder in ring.holders() {
            let limit = || memlock_limit(holder.pid);
            user.limits.entry(holder.pid).or_insert_with(limit);
        }
        match ring.charged {
            Some(Charged::User { locked_bytes, .. }) => user.charged = Some(locked_bytes),
            Some(_) => user.exempt = true,
            None => {}
        }
    }

    pub(crate) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        for (uid, user) in &self.users {
            let limit = limits(&user.limits);
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

/// The limit that these processes have; if they differ, the smallest one, which process
/// has it, and the greatest.
fn limits(of: &BTreeMap<u32, Option<Option<u64>>>) -> String {
    // Unlimited is more than any number.
    let order = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    let text = |limit: Option<u64>| limit.map_or_else(|| "unlimited".into(), human);
    let read: Vec<(u32, Option<u64>)> = of
        .iter()
        .filter_map(|(pid, limit)| Some((*pid, (*limit)?)))
        .collect();
    let least = read.iter().min_by_key(|(_, limit)| order(*limit));
    let most = read.iter().max_by_key(|(_, limit)| order(*limit));
    let (Some((pid, least)), Some((_, most))) = (least, most) else {
        return "RLIMIT_MEMLOCK not readable".into();
    };
    let mut told = format!("RLIMIT_MEMLOCK {}", text(*least));
    if least != most {
        told += &format!(" (process {pid}) to {}", text(*most));
    }
    match of.len() - read.len() {
        0 => told,
        unread => format!("{told}, not readable of {}", processes(unread)),
    }
}

fn processes(number: usize) -> String {
    match number {
        1 => "1 process".into(),
        n => format!("{n} processes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_differ_are_told_with_the_process_of_the_smallest() {
        let of = |all: &[(u32, Option<Option<u64>>)]| limits(&all.iter().copied().collect());
        assert_eq!(of(&[]), "RLIMIT_MEMLOCK not readable");
        assert_eq!(of(&[(7, Some(None))]), "RLIMIT_MEMLOCK unlimited");
        let same = [(7, Some(Some(1 << 20))), (8, Some(Some(1 << 20)))];
        assert_eq!(of(&same), "RLIMIT_MEMLOCK 1 MiB");
        let others = [(7, Some(None)), (8, Some(Some(4096))), (9, None)];
        assert_eq!(
            of(&others),
            "RLIMIT_MEMLOCK 4 KiB (process 8) to unlimited, not readable of 1 process"
        );
    }
}
