//! What can go wrong, and when it is worth trying again.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::choice::{Backend, Refusal};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. The text names what is missing and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The table would not hold still, or somebody kept its lock, for as
    /// long as the [`Retry`](crate::Retry) allowed (EDEADLK of a native iterator). Retryable.
    #[error(
        "{what} is busy: {why} in {attempts} attempts over {elapsed:.1?}; \
         try again, or ask for a raw look"
    )]
    Contended {
        /// The ring, by its inode, or the epoll set.
        what: String,
        /// What was in the way at the last attempt.
        why: Contention,
        /// How often it was tried.
        attempts: u32,
        /// For how long it was tried.
        elapsed: Duration,
    },

    /// The ring is no longer there, or its holder let go of it (ENXIO).
    #[error("ring {ring} is gone: {holder} no longer holds it")]
    RingGone {
        /// The inode of the ring.
        ring: u64,
        /// Who held it when it was attached.
        holder: String,
    },

    /// The descriptor is no io_uring (EOPNOTSUPP).
    #[error("descriptor {fd} of process {pid} is no io_uring: it is {}", .what.escape_debug())]
    NotARing {
        /// The process, in the caller's pid namespace.
        pid: u32,
        /// The descriptor.
        fd: i32,
        /// What it is, as `/proc/PID/fd` shows it.
        what: String,
    },

    /// The descriptor is no epoll set (EOPNOTSUPP).
    #[error("descriptor {fd} of process {pid} is no epoll set: it is {}", .what.escape_debug())]
    NotAnEpoll {
        /// The process, in the caller's pid namespace.
        pid: u32,
        /// The descriptor.
        fd: i32,
        /// What it is, as `/proc/PID/fd` shows it.
        what: String,
    },

    /// The epoll set is no longer there: it was closed, or its holder let go
    /// of it, and the number may be another one by now (ENXIO).
    #[error("{set} is gone: it was closed, or that number is another file by now")]
    EpollGone {
        /// The epoll set, by the descriptor that it was, or by its number.
        set: String,
    },

    /// The number is no open descriptor of the process (EBADF).
    #[error("process {pid} has no descriptor {fd}; `ls -l /proc/{pid}/fd` lists those it has")]
    NoSuchDescriptor {
        /// The process, in the caller's pid namespace.
        pid: u32,
        /// The descriptor.
        fd: i32,
    },

    /// There is no such process in the caller's pid namespace (ESRCH).
    #[error("no process {pid} in this pid namespace")]
    NoSuchProcess {
        /// The process that was asked for.
        pid: u32,
    },

    /// The caller may not do this (EPERM, EACCES).
    #[error("not permitted to {operation}: {needs}")]
    NotPermitted {
        /// What was tried.
        operation: String,
        /// What would permit it.
        needs: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },

    /// The backend that was asked for, or every backend, was refused.
    #[error("no backend can serve: {}", Refusal::list(.refusals))]
    NoBackend {
        /// Why, one refusal a backend.
        refusals: Vec<Refusal>,
    },

    /// The backend that serves cannot do what was asked.
    #[error("the {backend} backend cannot {what}: {why}")]
    Unsupported {
        /// The backend that serves.
        backend: Backend,
        /// What was asked.
        what: &'static str,
        /// Why it cannot, and what can.
        why: String,
    },

    /// The kernel has the iterator target and would not attach it (EINVAL or
    /// E2BIG: it takes other link info than that of the patches in kernel/).
    #[error(
        "the kernel did not attach the iterator {target}: {source}; \
         its patches are others than those in kernel/"
    )]
    LinkRefused {
        /// The iterator target.
        target: String,
        /// The kernel's answer.
        source: io::Error,
    },

    /// What is pinned at a path, or was passed as a link, is no link of the
    /// wanted iterator.
    #[error("{path}: no link of the BPF iterator {wanted}: {found}", path = .path.display())]
    WrongLink {
        /// The path.
        path: PathBuf,
        /// The iterator target that was wanted.
        wanted: String,
        /// What is there.
        found: String,
    },

    /// The kernel's table has more slots than this version of the crate has
    /// room for. Nothing was dropped: nothing was handed out.
    #[error("{what} has a table of {slots} slots, this version reads at most {max}")]
    TableTooLarge {
        /// The ring, by its inode, or the epoll set.
        what: String,
        /// The size of the table.
        slots: u64,
        /// The size that can be read.
        max: usize,
    },

    /// The ring's table has no slot of that index. (An empty slot is one.)
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
        /// What is wrong with it.
        what: String,
    },

    /// A system call failed in a way that has no name of its own here.
    #[error("{operation}: {source}")]
    Os {
        /// What was tried.
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

/// What was in the way of a consistent view.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Contention {
    /// The table changed while it was read.
    Changed,
    /// The lock (`uring_lock`, of an epoll set `ep->mtx`) was taken.
    LockHeld(LockOwner),
    /// The lock was taken; the kernel does not say by whom (fdinfo, and
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
                write!(f, "its lock was held, the kernel says not by whom,")
            }
            Self::LockTimeout => write!(f, "its lock could not be had in time"),
        }
    }
}

/// Who held the lock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
            _ => write!(f, "a task that let go of it or is not visible from here"),
        }
    }
}
