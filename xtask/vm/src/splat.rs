//! What the kernel says when something is wrong with it.

/// Any of these in a line of the kernel's log is a fault.
const SIGNS: &[&str] = &[
    "WARNING:",
    "BUG:",
    "kernel BUG at",
    "KASAN:",
    "UBSAN:",
    "Oops:",
    "Kernel panic",
    "general protection fault",
    "DEBUG_LOCKS_WARN_ON",
    "possible circular locking",
    "possible recursive locking",
    "possible irq lock inversion",
    "suspicious RCU usage",
    "soft lockup",
    "hard LOCKUP",
    "blocked for more than",
    "detected stall",
    "self-detected stall",
    "refcount_t:",
    "ODEBUG:",
    "list_add corruption",
    "list_del corruption",
    "new suspected memory leaks",
    "ring exit",
];

/// How many lines of a fault are shown.
const SHOWN: usize = 80;

/// The faults of a log, each with what follows it; empty if there are none.
pub(crate) fn find(log: &str) -> Vec<&str> {
    let lines: Vec<&str> = log.lines().collect();
    let is_sign = |line: &&str| SIGNS.iter().any(|sign| line.contains(sign));
    let Some(first) = lines.iter().position(is_sign) else {
        return Vec::new();
    };
    // Lockdep and KASAN draw a line above their heading.
    let first = first.saturating_sub(1);
    let end = lines.len().min(first + SHOWN);
    lines[first..end].to_vec()
}

/// Whether lockdep was on to the end: it switches itself off after its first
/// report, and in some cases without one.
pub(crate) fn lockdep_on(stats: &str) -> bool {
    let mut lines = stats.lines().filter_map(|line| line.split_once(':'));
    lines.any(|(name, value)| name.trim() == "debug_locks" && value.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::{find, lockdep_on};

    #[test]
    fn a_fault_is_shown_with_what_follows() {
        let log = "[1] fine\n[2] ======\n[2] WARNING: possible circular locking\n[3] more\n";
        assert_eq!(find(log).len(), 3);
        assert!(find("[1] kasan: KernelAddressSanitizer initialized\n").is_empty());
        // What fault injection says of itself.
        assert!(find("FAULT_INJECTION: forcing a failure.\nCall Trace:\n").is_empty());
    }

    #[test]
    fn lockdep_must_say_that_it_is_on() {
        assert!(lockdep_on(
            " max locking depth:  17\n debug_locks:              1\n"
        ));
        assert!(!lockdep_on(" debug_locks:              0\n"));
        assert!(!lockdep_on(""));
    }
}
