//! Which backend serves, and why others do not: facts for callers, no code that
//! asks a kernel.

use std::fmt;
use std::io;

/// Where the kernel describes its types.
pub(crate) const BTF: &str = "/sys/kernel/btf/vmlinux";

/// How the kernel is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Backend {
    /// The first of the others, in their order here, that can serve.
    #[default]
    Auto,
    /// The iterators `io_uring_buf`, `io_uring_file` and `epoll` of a kernel
    /// with the patches in kernel/, with the capabilities of
    /// [`Backend::TaskFile`]. They read under the lock, and wait for nobody.
    Native,
    /// A BPF program on the `task_file` iterator, and on `task` for rings
    /// without a descriptor: Linux 6.1 and later, with `CAP_BPF` and
    /// `CAP_PERFMON`, or `CAP_SYS_ADMIN`.
    TaskFile,
    /// The text of `/proc/PID/fdinfo/FD`: every kernel and no privilege for
    /// one's own processes, but fewer fields; see
    /// [`Snapshot::known_fields`](crate::Snapshot::known_fields).
    Fdinfo,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::TaskFile => "task-file",
            Self::Fdinfo => "fdinfo",
        })
    }
}

/// Why a backend cannot serve.
#[derive(Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// The backend that was refused.
    pub backend: Backend,
    /// What is missing.
    pub reason: Reason,
}

/// What a backend lacks.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reason {
    /// Capabilities that the caller does not have.
    MissingCapability(String),
    /// The capabilities are there and the kernel said EPERM all the same.
    NotPermitted(io::Error),
    /// The kernel does not describe its types.
    MissingBtf,
    /// It does, in a file that cannot be read.
    UnreadableBtf(io::Error),
    /// /proc is not mounted, or shows another pid namespace.
    WrongProc,
    /// The kernel has no such iterator target.
    MissingTarget(&'static str),
    /// The kernel has such a target and did not attach it: its patches are
    /// others than those in kernel/.
    LinkRefused(io::Error),
    /// The native iterators attach by a descriptor, and none could be had:
    /// why not.
    NoDescriptor(String),
    /// The kernel has the target and refused the programs.
    Rejected {
        /// The kernel's answer.
        source: io::Error,
        /// The last lines of the verifier.
        log: String,
    },
    /// This build or version of the crate does not have it.
    NotBuilt(&'static str),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingCapability(which) => write!(f, "missing {which}; run it as root"),
            Self::NotPermitted(source) => write!(
                f,
                "bpf(2) was refused ({source}) though the capabilities are there: a user \
                 namespace other than the initial one, kernel lockdown or a security module"
            ),
            Self::MissingBtf => write!(
                f,
                "{} is missing: the kernel was built without CONFIG_DEBUG_INFO_BTF, \
                 or /sys is not mounted",
                BTF
            ),
            Self::UnreadableBtf(source) => {
                write!(f, "{} cannot be read: {source}", BTF)
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
                "the kernel has its iterator and did not attach it ({source}): \
                 its patches are others than those in kernel/"
            ),
            Self::NoDescriptor(why) => write!(f, "it attaches by a descriptor of the ring: {why}"),
            Self::Rejected { source, log } => {
                write!(f, "the kernel refused the BPF programs: {source}")?;
                // The last words of the verifier but its statistics.
                let says = |line: &&str| !line.trim().is_empty() && !line.starts_with("processed ");
                match log.lines().rev().find(says) {
                    Some(line) => write!(f, " ({line})"),
                    None => Ok(()),
                }
            }
            Self::NotBuilt(what) => f.write_str(what),
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

/// Which backend serves, and why those before it do not.
#[derive(Debug)]
#[non_exhaustive]
pub struct Selection {
    /// The backend that serves; never [`Backend::Auto`].
    pub backend: Backend,
    /// Those that were tried before it.
    pub refused: Vec<Refusal>,
}
