//! What /proc says of the processes that hold rings: their container, and a limit.

use std::collections::HashMap;
use std::fs;

use serde::Serialize;

/// Where a process runs, as far as /proc says it.
#[derive(Clone, Default, Serialize)]
pub(crate) struct Container {
    /// Its number in the pid namespace that it is in, which may be one below ours.
    pub(crate) ns_pid: Option<u32>,
    /// The path of its cgroup, as cgroup_namespaces(7) shows it to us.
    pub(crate) cgroup: Option<String>,
    /// All bytes of that path in hexadecimal, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cgroup_bytes: Option<String>,
}

/// Asks each process once.
#[derive(Default)]
pub(crate) struct Containers(HashMap<u32, Container>);

impl Containers {
    pub(crate) fn of(&mut self, pid: u32) -> &Container {
        self.0.entry(pid).or_insert_with(|| match is_our_proc() {
            true => {
                let path = read_bytes(pid, "cgroup").and_then(|text| cgroup(&text));
                let text = |path: &Vec<u8>| String::from_utf8_lossy(path).into_owned();
                Container {
                    ns_pid: read(pid, "status").and_then(|text| ns_pid(&text)),
                    cgroup: path.as_ref().map(text),
                    cgroup_bytes: path.as_deref().and_then(hexadecimal),
                }
            }
            false => Container::default(),
        })
    }
}

/// The soft RLIMIT_MEMLOCK of a process in bytes, `Some(None)` for unlimited.
pub(crate) fn memlock_limit(pid: u32) -> Option<Option<u64>> {
    if !is_our_proc() {
        return None;
    }
    let limits = read(pid, "limits")?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(None),
        bytes => bytes.parse().ok().map(Some),
    }
}

/// False for the /proc of another pid namespace.
fn is_our_proc() -> bool {
    let own = fs::read_link("/proc/self");
    own.is_ok_and(|own| own.as_os_str() == std::process::id().to_string().as_str())
}

/// A file of a process, which need not be UTF-8.
fn read(pid: u32, name: &str) -> Option<String> {
    read_bytes(pid, name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn read_bytes(pid: u32, name: &str) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/{name}")).ok()
}

/// Bytes that are not UTF-8, for JSON, which cannot have them.
pub(crate) fn hexadecimal(bytes: &[u8]) -> Option<String> {
    let is_text = std::str::from_utf8(bytes).is_ok();
    (!is_text).then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The last number of `NSpid`: those before are of the namespaces above.
fn ns_pid(status: &str) -> Option<u32> {
    let numbers = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    numbers.split_whitespace().last()?.parse().ok()
}

/// The path in the hierarchy of version 2; without one, in that of systemd, or the first.
fn cgroup(text: &[u8]) -> Option<Vec<u8>> {
    // ID:CONTROLLERS:PATH, cgroups(7)
    let mut lines = text.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut parts = line.splitn(3, |&byte| byte == b':');
        Some((parts.next()?, parts.next()?, parts.next()?))
    });
    let version_2 = |(id, controllers, _): &(&[u8], &[u8], &[u8])| {
        *id == b"0" && controllers.is_empty() || *controllers == b"name=systemd"
    };
    let mut all = lines.clone().filter(version_2);
    let (_, _, path) = all.next().or_else(|| lines.next())?;
    Some(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_number_counts() {
        assert_eq!(ns_pid("Pid:\t70\nNSpid:\t70\t3\t1\n"), Some(1));
        assert_eq!(ns_pid("NSpid:\t70\n"), Some(70));
        assert_eq!(ns_pid("Pid:\t70\n"), None);
    }

    #[test]
    fn the_cgroup_of_version_2_is_preferred() {
        let of = |text: &str| cgroup(text.as_bytes()).map(|path| String::from_utf8(path).unwrap());
        assert_eq!(of("0::/a:b\n"), Some("/a:b".into()));
        let mixed = "12:memory:/m\n1:name=systemd:/s\n";
        assert_eq!(of(mixed), Some("/s".into()));
        assert_eq!(of("12:memory:/m\n"), Some("/m".into()));
        assert_eq!(of(""), None);
    }
}
