//! The backends, which of them is in use, and why others are not: facts for
//! callers, and no code that asks a kernel.

use std::fmt;
use std::io;
use std::str::FromStr;

/// Where the kernel describes its types.
pub(crate) const BTF: &str = "/sys/kernel/btf/vmlinux";

/// A way to ask the kernel, in the order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Backend {
    /// The iterators `io_uring_buf`, `io_uring_file` and `epoll` of a kernel
    /// with the patches in kernel/, with the capabilities of
    /// [`Backend::TaskFile`]. They read under the lock. Those of rings never
    /// wait for it; that of an epoll set does.
    Native,
    /// A BPF program that looks at the files of a task, without a lock: Linux 6.1
    /// and later, with `CAP_BPF` and `CAP_PERFMON`, or `CAP_SYS_ADMIN`. From 6.10
    /// on a system call runs it, before that an iterator over tasks.
    TaskFile,
    /// The text of `/proc/PID/fdinfo/FD`: every kernel, and no privilege for
    /// processes of the same user, but fewer fields; see
    /// [`Snapshot::known_fields`](crate::Snapshot::known_fields).
    Fdinfo,
}

impl Backend {
    /// All backends, the preferred one first.
    pub const ALL: [Self; 3] = [Self::Native, Self::TaskFile, Self::Fdinfo];

    fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::TaskFile => "task-file",
            Self::Fdinfo => "fdinfo",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Backend {
    type Err = UnknownBackend;

    /// The names that [`Display`](fmt::Display) prints: `native`, `task-file`,
    /// `fdinfo`.
    fn from_str(name: &str) -> Result<Self, UnknownBackend> {
        let mut all = Self::ALL.into_iter();
        let found = all.find(|backend| backend.name() == name);
        found.ok_or_else(|| UnknownBackend(name.into()))
    }
}

/// The error of [`Backend::from_str`]: a name that no backend has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnknownBackend(String);

impl fmt::Display for UnknownBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [native, task_file, fdinfo] = Backend::ALL;
        write!(
            f,
            "there is no backend {:?}, only {native}, {task_file} and {fdinfo}",
            self.0
        )
    }
}

impl std::error::Error for UnknownBackend {}

/// Why a backend cannot serve.
#[derive(Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// The backend that was refused.
    pub backend: Backend,
    /// The reason.
    pub reason: Reason,
}

/// A capability of the caller, capabilities(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Capability {
    /// `CAP_BPF` (Linux 5.8).
    Bpf,
    /// `CAP_PERFMON` (Linux 5.8).
    Perfmon,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bpf => "CAP_BPF",
            Self::Perfmon => "CAP_PERFMON",
        })
    }
}

/// A need of a backend that is not met.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reason {
    /// Capabilities that the caller does not have, in its effective set.
    MissingCapability(Vec<Capability>),
    /// The capabilities are there and the kernel said EPERM all the same.
    NotPermitted(io::Error),
    /// The capabilities are there, but only in a user namespace: the kernel wants them in
    /// the initial one, user_namespaces(7).
    UserNamespace(io::Error),
    /// Kernel lockdown is in confidentiality mode: no program may read kernel memory,
    /// kernel_lockdown(7).
    Lockdown,
    /// The kernel does not describe its types.
    MissingBtf,
    /// The kernel describes its types in a file that cannot be read.
    UnreadableBtf(io::Error),
    /// /proc is not mounted, or shows another pid namespace.
    WrongProc,
    /// The kernel has no such iterator target.
    MissingTarget(&'static str),
    /// The kernel has such a target and refused to attach it: its patches
    /// differ from those in kernel/.
    LinkRefused(io::Error),
    /// The native iterators attach by a descriptor, and no descriptor of the
    /// ring could be copied: the reason.
    NoDescriptor(String),
    /// The kernel has the target and refused the programs.
    Rejected {
        /// The kernel's answer.
        source: io::Error,
        /// The last lines of the verifier.
        log: String,
    },
    /// This build of the crate has the feature `bpf` switched off.
    NotBuilt,
    /// A native iterator shows one ring or epoll set; it cannot search for them.
    CannotSearch,
    /// The text of fdinfo does not show this.
    NotInFdinfo(&'static str),
}

impl Reason {
    /// True if a native iterator may serve another ring.
    pub(crate) fn is_of_one_ring(&self) -> bool {
        matches!(
            self,
            Self::NotPermitted(_) | Self::LinkRefused(_) | Self::NoDescriptor(_)
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingCapability(which) => {
                let names: Vec<String> = which.iter().map(Capability::to_string).collect();
                write!(f, "missing {}; ", names.join(" and "))?;
                match rustix::process::geteuid().is_root() {
                    true => f.write_str(
                        "root has lost them here: give them to the container or service \
                         (`--cap-add`, `AmbientCapabilities=`)",
                    ),
                    false => {
                        let set = names.join(",").to_lowercase();
                        write!(f, "run it as root, or `setcap {set}+ep` the program")
                    }
                }
            }
            Self::NotPermitted(source) => write!(
                f,
                "bpf(2) was refused ({source}) though the capabilities are there: \
                 a seccomp filter or a security module forbids it"
            ),
            Self::UserNamespace(source) => write!(
                f,
                "bpf(2) was refused ({source}): the capabilities are there in a user \
                 namespace only; run it outside of the container, in the initial one"
            ),
            Self::Lockdown => f.write_str(
                "kernel lockdown is in confidentiality mode, in which no program may read \
                 kernel memory; boot with lockdown=integrity, or without lockdown",
            ),
            Self::MissingBtf => write!(
                f,
                "{BTF} is missing: the kernel was built without CONFIG_DEBUG_INFO_BTF, \
                 or /sys is not mounted"
            ),
            Self::UnreadableBtf(source) => {
                write!(f, "{BTF} cannot be read: {source}")
            }
            Self::WrongProc => write!(
                f,
                "/proc is not mounted or shows another pid namespace: mount -t proc proc /proc"
            ),
            Self::MissingTarget(target) => {
                write!(f, "this kernel has no BPF iterator target {target}")?;
                match *target {
                    "task_file" => Ok(()),
                    _ => write!(f, " (it takes the patches in kernel/)"),
                }
            }
            Self::LinkRefused(source) => write!(
                f,
                "the kernel has its iterator and refused to attach it ({source}): \
                 its patches differ from those in kernel/"
            ),
            Self::NoDescriptor(why) => write!(f, "it attaches by a descriptor of the ring: {why}"),
            Self::Rejected { source, log } => {
                write!(f, "the kernel refused the BPF programs: {source}")?;
                // The last line of the verifier that is not its statistics.
                let says = |line: &&str| !line.trim().is_empty() && !line.starts_with("processed ");
                match log.lines().rev().find(says) {
                    Some(line) => write!(f, " ({line})"),
                    None => Ok(()),
                }
            }
            Self::NotBuilt => f.write_str("this build has the feature `bpf` switched off"),
            Self::CannotSearch => f.write_str(
                "a native iterator shows one ring or epoll set; it cannot search for them",
            ),
            Self::NotInFdinfo(what) => write!(f, "fdinfo does not show {what}"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.backend, self.reason)
    }
}

impl Refusal {
    pub(crate) fn list(refusals: &[Self]) -> String {
        let all: Vec<String> = refusals.iter().map(Self::to_string).collect();
        all.join("; ")
    }
}

/// The backends to try for this wish, the best one first.
pub(crate) fn in_order(wanted: &Option<Backend>) -> &[Backend] {
    match wanted {
        None => &Backend::ALL,
        Some(one) => std::slice::from_ref(one),
    }
}

/// The backend in use, and why the preferred ones are not.
#[derive(Debug)]
#[non_exhaustive]
pub struct Selection {
    /// The backend in use.
    pub backend: Backend,
    /// The backends that were tried before it, in that order.
    pub refused: Vec<Refusal>,
}
