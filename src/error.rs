//! Errors, and when it is worth trying again.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::choice::{Backend, Reason, Refusal};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate. Its text names what is missing and what to do about
/// it; [`Error::errno`] gives the errno that it stands for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The table kept changing, or its lock was held, for as long as the
    /// [`Retry`](crate::Retry) allowed (EDEADLK, as a native iterator reports
    /// it). Retryable.
    #[error(
        "{what} is busy: {why} (attempts: {attempts}, in {elapsed:.1?}); \
         try again, or ask for a raw read"
    )]
    Contended {
        /// The ring, by its inode, or the epoll set.
        what: String,
        /// The obstacle at the last attempt.
        why: Contention,
        /// The number of attempts.
        attempts: u32,
        /// The time from the first attempt to the last.
        elapsed: Duration,
    },

    /// The ring is no longer there, or its holders have closed it (ENXIO).
    #[error("ring {ring} is gone: {holder} no longer holds it")]
    RingGone {
        /// The inode of the ring.
        ring: u64,
        /// The holder that it was attached by.
        holder: String,
    },

    /// The descriptor is not an io_uring instance (EOPNOTSUPP).
    #[error(
        "descriptor {fd} of process {pid} is not an io_uring instance: it is {}",
        .what.escape_debug()
    )]
    NotARing {
        /// The process, in the caller's pid namespace.
        pid: u32,
        /// The descriptor.
        fd: i32,
        /// Its file, as `/proc/PID/fd` shows it.
        what: String,
    },

    /// The descriptor is not an epoll set (EOPNOTSUPP).
    #[error(
        "descriptor {fd} of process {pid} is not an epoll set: it is {}",
        .what.escape_debug()
    )]
    NotAnEpoll {
        /// The process, in the caller's pid namespace.
        pid: u32,
        /// The descriptor.
        fd: i32,
        /// Its file, as `/proc/PID/fd` shows it.
        what: String,
    },

    /// The epoll set is no longer there: it was closed, or its holder closed
    /// the descriptor, and the number may be another file by now (ENXIO).
    #[error("{set} is gone: it was closed, or the number now refers to another file")]
    EpollGone {
        /// The epoll set, by the descriptor that it was, or by its number.
        set: String,
    },

    /// The process has no open descriptor of that number (EBADF).
    #[error("process {pid} has no descriptor {fd}; `ls -l /proc/{pid}/fd` lists the ones it has")]
    NoSuchDescriptor {
        /// The process, in the caller's pid namespace.
        pid: u32,
        /// The descriptor.
        fd: i32,
    },

    /// There is no such process in the caller's pid namespace (ESRCH).
    #[error("there is no process {pid} in this pid namespace")]
    NoSuchProcess {
        /// The process that was asked for.
        pid: u32,
    },

    /// The number that was given for a process is that of a thread (ESRCH).
    #[error(
        "{tid} is a thread of process {pid}: ask for process {pid}, \
         or for the thread by itself (`RingFinder::find_thread`, `uringctl --tid {tid}`)"
    )]
    IsAThread {
        /// The thread that was asked for, in the caller's pid namespace.
        tid: u32,
        /// Its process.
        pid: u32,
    },

    /// The descriptor is a ring in more than one thread of the process, each with a
    /// table of descriptors that it does not share, and it is not the same ring.
    #[error(
        "descriptor {fd} of process {pid} is more than one ring: {}; name one of the threads",
        several(.rings)
    )]
    SeveralRings {
        /// The process, in the caller's pid namespace.
        pid: u32,
        /// The descriptor.
        fd: i32,
        /// The threads, and the inode of the ring that each has there.
        rings: Vec<(u32, u64)>,
    },

    /// The caller may not do this (EPERM, EACCES).
    #[error("not permitted to {operation}: {needs}")]
    NotPermitted {
        /// The operation that failed.
        operation: String,
        /// The rights that would permit it.
        needs: Permission,
        /// The kernel's answer.
        source: io::Error,
    },

    /// The backend that was asked for, or every backend, was refused.
    #[error("no backend can serve: {}", Refusal::list(.refusals))]
    NoBackend {
        /// The reasons, one for each backend.
        refusals: Vec<Refusal>,
    },

    /// The backend in use cannot do what was asked.
    #[error("the {backend} backend cannot {what}: {why}")]
    Unsupported {
        /// The backend in use.
        backend: Backend,
        /// The operation that was asked for.
        what: Operation,
        /// The reason, and a way that works if there is one.
        why: Limitation,
    },

    /// The kernel has the iterator target and refused to attach it (EINVAL or
    /// E2BIG: its link info differs from that of the patches in kernel/).
    #[error(
        "the kernel refused to attach the iterator {target}: {source}; \
         its patches differ from those in kernel/"
    )]
    LinkRefused {
        /// The iterator target.
        target: String,
        /// The kernel's answer.
        source: io::Error,
    },

    /// The object that is pinned at a path is not a link of the wanted
    /// iterator.
    #[error("{path}: not a link of the BPF iterator {wanted}: {found}", path = .path.display())]
    WrongLink {
        /// The path.
        path: PathBuf,
        /// The iterator target that was wanted.
        wanted: String,
        /// The object that is there.
        found: String,
    },

    /// The kernel's table has more slots than this version of the crate can
    /// hold. Nothing was dropped: no record was handed out.
    #[error("{what} has a table of {slots} slots; this version reads at most {max}")]
    TableTooLarge {
        /// The ring, by its inode, or the epoll set.
        what: String,
        /// The size of the table.
        slots: u64,
        /// The size that can be read.
        max: usize,
    },

    /// The ring's table has no slot of that index. (An empty slot is a slot.)
    #[error("ring {ring} has no slot {index}: its table has {slots} slots")]
    NoSuchSlot {
        /// The inode of the ring.
        ring: u64,
        /// The index that was asked for.
        index: u64,
        /// The size of the table.
        slots: u64,
    },

    /// Input from the kernel that makes no sense.
    #[error("malformed input from {origin}: {what}")]
    Malformed {
        /// The file, with the line, or the program.
        origin: String,
        /// The fault.
        what: String,
    },

    /// A system call failed in a way that has no variant of its own here.
    #[error("{operation}: {source}")]
    Os {
        /// The operation that failed.
        operation: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    /// True if the same call may succeed later without anything being changed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Contended { .. })
    }

    /// The errno that the error stands for: that of the system call that
    /// failed, or the one that the kernel's own interface has for it (EDEADLK
    /// for [`Error::Contended`], ENXIO for a ring or set that is gone,
    /// EOPNOTSUPP for a descriptor of another kind, EBADF, ESRCH). `None` for
    /// the rest.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Contended { .. } => Some(libc::EDEADLK),
            Self::RingGone { .. } | Self::EpollGone { .. } => Some(libc::ENXIO),
            Self::NotARing { .. } | Self::NotAnEpoll { .. } => Some(libc::EOPNOTSUPP),
            Self::NoSuchDescriptor { .. } => Some(libc::EBADF),
            Self::NoSuchProcess { .. } | Self::IsAThread { .. } => Some(libc::ESRCH),
            Self::NotPermitted { source, .. }
            | Self::LinkRefused { source, .. }
            | Self::Os { source, .. } => source.raw_os_error(),
            Self::NoBackend { .. }
            | Self::Unsupported { .. }
            | Self::WrongLink { .. }
            | Self::TableTooLarge { .. }
            | Self::NoSuchSlot { .. }
            | Self::SeveralRings { .. }
            | Self::Malformed { .. } => None,
        }
    }

    pub(crate) fn os(operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Os {
            operation: operation.into(),
            source: source.into(),
        }
    }

    pub(crate) fn malformed(origin: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Malformed {
            origin: origin.into(),
            what: what.into(),
        }
    }
}

/// The whole error is kept inside. The kind is `WouldBlock` for
/// [`Error::Contended`], `NotFound` for a process, descriptor, ring or epoll set
/// that is not there, `InvalidInput` for a descriptor, link or slot of another kind,
/// `Unsupported`, `InvalidData`, or that of the system call that failed.
/// `raw_os_error()` is `None`; [`Error::errno`] has the errno.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Contended { .. } => io::ErrorKind::WouldBlock,
            Error::RingGone { .. }
            | Error::EpollGone { .. }
            | Error::NoSuchDescriptor { .. }
            | Error::NoSuchProcess { .. }
            | Error::IsAThread { .. } => io::ErrorKind::NotFound,
            Error::NotARing { .. }
            | Error::NotAnEpoll { .. }
            | Error::WrongLink { .. }
            | Error::NoSuchSlot { .. }
            | Error::SeveralRings { .. } => io::ErrorKind::InvalidInput,
            Error::NoBackend { .. } | Error::Unsupported { .. } | Error::TableTooLarge { .. } => {
                io::ErrorKind::Unsupported
            }
            Error::Malformed { .. } => io::ErrorKind::InvalidData,
            Error::NotPermitted { source, .. }
            | Error::LinkRefused { source, .. }
            | Error::Os { source, .. } => source.kind(),
        };
        io::Error::new(kind, error)
    }
}

/// `ring 7 (thread 12), ring 9 (thread 13)`.
fn several(rings: &[(u32, u64)]) -> String {
    let name = |(tid, inode): &(u32, u64)| format!("ring {inode} (thread {tid})");
    rings.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Why one attempt gave no result.
#[derive(Debug)]
pub(crate) enum Missed {
    /// Another attempt may succeed.
    Busy(Contention),
    /// No attempt will.
    Failed(Error),
}

impl From<Error> for Missed {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The rights that an operation would need. As text it says how the caller, with the
/// capabilities that it has, may get them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Permission {
    /// Ptrace rights over the process, to copy a descriptor of it
    /// (pidfd_getfd(2), `PTRACE_MODE_ATTACH_REALCREDS`).
    CopyDescriptor,
    /// Ptrace rights over the process, to read its files in /proc
    /// (`PTRACE_MODE_READ_FSCREDS`).
    ReadProc,
    /// A seccomp filter or a security module that allows the call.
    Policy,
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CopyDescriptor | Self::ReadProc if has_ptrace() => {
                "CAP_SYS_PTRACE is there, so a security module or a seccomp filter forbids \
                 it, or the process is in a user namespace above"
            }
            Self::CopyDescriptor => {
                "have CAP_SYS_PTRACE, which root has unless it was taken away, or be the same \
                 user with all capabilities that the process has, where \
                 kernel.yama.ptrace_scope is 0"
            }
            Self::ReadProc => {
                "have CAP_SYS_PTRACE, which root has unless it was taken away, or be the same \
                 user with all capabilities that the process has"
            }
            Self::Policy => "a seccomp filter or security module forbids it",
        })
    }
}

/// Whether the caller has `CAP_SYS_PTRACE`.
fn has_ptrace() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| {
        sets.effective
            .contains(rustix::thread::CapabilitySet::SYS_PTRACE)
    })
}

/// An operation that not every backend can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// To read a table under `uring_lock`.
    ReadLocked,
    /// To read a ring that no task has a descriptor of.
    ReadWithoutDescriptor,
    /// To list the descriptors of a process with the files that they are of.
    ListDescriptors,
    /// To tell the path of a registered file.
    TellPath,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadLocked => "read under uring_lock",
            Self::ReadWithoutDescriptor => "read a ring that no task has a descriptor of",
            Self::ListDescriptors => "list the files behind descriptors",
            Self::TellPath => "tell the path of a registered file",
        })
    }
}

/// Why a backend cannot do an [`Operation`] here.
#[derive(Debug)]
#[non_exhaustive]
pub enum Limitation {
    /// The kernel's tracepoint `io_uring_register` fires after the unlock
    /// (before about Linux 6.13).
    TracepointAfterUnlock,
    /// The kernel refused the program for that tracepoint.
    ProgramRefused(Reason),
    /// Children of this process begin a new pid namespace, so a helper process
    /// would become the init of that namespace.
    PidNamespaceOfChildren,
    /// The ring is held only by a thread that does not share its descriptor
    /// table, and its descriptor cannot be copied before Linux 6.9.
    ThreadDescriptors,
    /// No holder of the ring has an open descriptor of it.
    NoDescriptor,
    /// Only a native iterator can do it.
    NeedsNative,
    /// Only a BPF backend can do it.
    NeedsBpf,
    /// /proc shows the ring as a mapping at most.
    OnlyMapped,
    /// The text of /proc has the last part of each path (before Linux 6.18).
    NamesOnly,
}

impl fmt::Display for Limitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TracepointAfterUnlock => f.write_str(
                "this kernel's tracepoint io_uring_register fires after the unlock; \
                 Linux 6.13 and later fire it before",
            ),
            Self::ProgramRefused(reason) => write!(f, "{reason}; it takes Linux 6.13 or later"),
            Self::PidNamespaceOfChildren => f.write_str(
                "children of this process begin a new pid namespace (unshare(2)): \
                 fork first",
            ),
            Self::ThreadDescriptors => f.write_str(
                "no descriptor of the ring could be copied: it belongs to a thread \
                 with its own descriptor table, which takes Linux 6.9",
            ),
            Self::NoDescriptor => {
                f.write_str("that takes a descriptor of the ring, and its holders have none")
            }
            Self::NeedsNative => f.write_str(
                "that takes a native iterator; for a file that has a descriptor, \
                 /proc/PID/fd/N is a link to it",
            ),
            Self::NeedsBpf => f.write_str("that takes the task-file or the native backend"),
            Self::NamesOnly => {
                f.write_str("before Linux 6.18 its text has the last part of each path")
            }
            Self::OnlyMapped => f.write_str(
                "/proc shows it as a mapping at most; the task-file backend can, as root",
            ),
        }
    }
}

/// The reason why a consistent view was not possible.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Contention {
    /// The table changed while it was read.
    Changed,
    /// The lock (`uring_lock`, of an epoll set `ep->mtx`) was taken.
    LockHeld(LockOwner),
    /// The lock was taken, and the kernel does not name its owner (fdinfo, and
    /// EDEADLK of a native iterator).
    LockHeldUnseen,
    /// The observer that asked for the lock had to be abandoned: it did not
    /// get it in time.
    LockTimeout,
}

impl fmt::Display for Contention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed => write!(f, "its table changed while it was read"),
            Self::LockHeld(owner) => write!(f, "its lock was held by {owner}"),
            Self::LockHeldUnseen => {
                write!(
                    f,
                    "its lock was held by a task that the kernel does not name"
                )
            }
            Self::LockTimeout => write!(f, "its lock was not free in time"),
        }
    }
}

/// The task that held the lock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct LockOwner {
    /// The process, in the caller's pid namespace; `None` if it has no number
    /// there or had let go again.
    pub pid: Option<u32>,
    /// The thread.
    pub tid: Option<u32>,
    /// The name of the thread.
    pub name: String,
    /// True if it was off the CPU, waiting for something, with the lock held.
    pub sleeps: bool,
}

impl fmt::Display for LockOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, self.tid) {
            (Some(pid), Some(tid)) => {
                write!(
                    f,
                    "thread {tid} of process {pid} ({})",
                    self.name.escape_debug()
                )?;
                if self.sleeps {
                    write!(f, ", which sleeps (`cat /proc/{pid}/task/{tid}/stack`),")?;
                }
                Ok(())
            }
            _ => write!(f, "a task that has released it or is not visible here"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_those_that_are_promised() {
        let kind = |error: Error| io::Error::from(error).kind();
        let gone = Error::RingGone {
            ring: 1,
            holder: "a test".into(),
        };
        assert_eq!(gone.errno(), Some(libc::ENXIO));
        assert_eq!(kind(gone), io::ErrorKind::NotFound);
        let no_process = Error::NoSuchProcess { pid: 1 };
        assert_eq!(kind(no_process), io::ErrorKind::NotFound);
        let refused = Error::os("a test", io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(refused.errno(), Some(libc::EPERM));
        assert_eq!(kind(refused), io::ErrorKind::PermissionDenied);
        let no_backend = Error::NoBackend {
            refusals: Vec::new(),
        };
        assert_eq!(kind(no_backend), io::ErrorKind::Unsupported);
    }
}
