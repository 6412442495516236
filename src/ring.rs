//! What a ring is, and who holds it.

use std::os::fd::RawFd;

use bitflags::bitflags;

use crate::find::Details;
use crate::record::Consistency;
use crate::record::{RegisteredBuf, RegisteredBufs};

bitflags! {
    /// The flags that a ring was set up with.
    ///
    /// Source: `IORING_SETUP_*`, include/uapi/linux/io_uring.h; io_uring_setup(2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    #[cfg_attr(feature = "serde", derive(serde::Serialize))]
    #[cfg_attr(feature = "serde", serde(transparent))]
    pub struct SetupFlags: u32 {
        /// Completions are polled for, not interrupt driven.
        const IOPOLL = 1 << 0;
        /// A kernel thread submits.
        const SQPOLL = 1 << 1;
        /// The SQPOLL thread is bound to a CPU.
        const SQ_AFF = 1 << 2;
        /// The size of the CQ was given.
        const CQSIZE = 1 << 3;
        /// Sizes beyond the limit were clamped.
        const CLAMP = 1 << 4;
        /// Shares the async workers of another ring.
        const ATTACH_WQ = 1 << 5;
        /// Was set up disabled (5.10).
        const R_DISABLED = 1 << 6;
        /// Submission goes on after an error (5.18).
        const SUBMIT_ALL = 1 << 7;
        /// Task work does not interrupt the task (5.19).
        const COOP_TASKRUN = 1 << 8;
        /// Task work sets a flag in the SQ ring (5.19).
        const TASKRUN_FLAG = 1 << 9;
        /// SQEs of 128 bytes (5.19).
        const SQE128 = 1 << 10;
        /// CQEs of 32 bytes (5.19).
        const CQE32 = 1 << 11;
        /// One task submits (6.0).
        const SINGLE_ISSUER = 1 << 12;
        /// Task work runs when the task asks for completions (6.1).
        const DEFER_TASKRUN = 1 << 13;
        /// The ring lies in memory of the application (6.5).
        const NO_MMAP = 1 << 14;
        /// The descriptor was only ever registered (6.5).
        const REGISTERED_FD_ONLY = 1 << 15;
        /// No indirection array for the SQ (6.6).
        const NO_SQARRAY = 1 << 16;
        /// Hybrid polling (6.13).
        const HYBRID_IOPOLL = 1 << 17;
        /// CQEs of 16 and of 32 bytes (6.18).
        const CQE_MIXED = 1 << 18;
        /// SQEs of 64 and of 128 bytes (7.0).
        const SQE_MIXED = 1 << 19;
        /// The SQ is no ring: it is filled from the start each time (7.0).
        const SQ_REWIND = 1 << 20;
        const _ = !0;
    }
}

/// How a task holds a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Via {
    /// By an open descriptor.
    Descriptor(RawFd),
    /// By a registered descriptor (`IORING_REGISTER_RING_FDS` or
    /// `IORING_SETUP_REGISTERED_FD_ONLY`), with its index.
    Registered(u32),
    /// By a mapping of the ring's memory.
    Mapping,
}

/// A task that holds a ring, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The process, in the caller's pid namespace.
    pub pid: u32,
    /// The thread: that of the process itself, but where threads hold things
    /// of their own (registered descriptors, unshared descriptor tables).
    pub tid: u32,
    /// How it holds the ring.
    pub via: Via,
    /// The effective uid of the task, in the initial user namespace (of the
    /// caller's user namespace with the fdinfo backend).
    pub uid: u32,
    /// The name of the process.
    pub name: String,
}

impl Holder {
    /// The descriptor, `None` for a registered descriptor or a mapping.
    pub fn fd(&self) -> Option<RawFd> {
        match self.via {
            Via::Descriptor(fd) => Some(fd),
            _ => None,
        }
    }
}

/// The SQPOLL thread of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SqPoll {
    /// The thread, in the caller's pid namespace; `None` while it is not
    /// running or not visible from there.
    pub tid: Option<u32>,
    /// The CPU that it is bound to ([`SetupFlags::SQ_AFF`]), else one that it
    /// ran on.
    pub cpu: Option<u32>,
}

/// Head and tail of a queue, as free-running 32-bit counters: their wrapping
/// difference is the number of entries in the queue. Shared with the process,
/// which can write anything there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queue {
    /// The number of entries that the queue has room for.
    pub entries: u32,
    /// Where the consumer is.
    pub head: u32,
    /// Where the producer is.
    pub tail: u32,
}

impl Queue {
    /// The number of entries that wait in the queue.
    pub fn pending(&self) -> u32 {
        self.tail.wrapping_sub(self.head)
    }
}

/// The memory that the registered buffers of a ring hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pinned {
    /// How far these numbers belong together.
    pub consistency: Consistency,
    /// The number of buffers: slots that are not empty.
    pub buffers: u32,
    /// Bytes in pages that the buffers touch. A page under two buffers counts
    /// twice.
    pub bytes: u64,
    /// Bytes that were accounted for them, `None` where the kernel does not
    /// know (it does up to 6.18).
    pub accounted: Option<u64>,
}

impl Pinned {
    /// What the buffers of a table come to.
    pub fn of(bufs: &[RegisteredBuf], consistency: Consistency) -> Self {
        let page = rustix::param::page_size() as u64;
        Self {
            consistency,
            buffers: bufs.filled().count() as u32,
            bytes: bufs.pinned_bytes(),
            accounted: bufs.acct_pages().map(|pages| pages.saturating_mul(page)),
        }
    }
}

/// To whom the memory of a ring is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Charged {
    /// To nobody: the creator had `CAP_IPC_LOCK`.
    Exempt,
    /// To this user, against `RLIMIT_MEMLOCK`.
    User {
        /// The uid, in the initial user namespace.
        uid: u32,
        /// All bytes that are locked in this user's name, also by other rings
        /// and other parts of the kernel (`user_struct.locked_vm`).
        locked_bytes: u64,
    },
}

/// An io_uring instance.
///
/// Values that a backend cannot know are `None`. They are read without a lock
/// while the ring is in use: each is a value that was there, not all are of
/// one moment, except for [`Ring::pinned`], which is only given when it could
/// be verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ring {
    /// The inode of the ring's file: no two live rings have the same.
    pub inode: u64,
    holders: Vec<Holder>,
    /// The uid of its creator, in the initial user namespace.
    pub creator_uid: Option<u32>,
    /// How it was set up.
    pub flags: Option<SetupFlags>,
    /// The submission queue.
    pub sq: Option<Queue>,
    /// The completion queue.
    pub cq: Option<Queue>,
    /// Its SQPOLL thread, `None` for a ring without one.
    pub sqpoll: Option<SqPoll>,
    /// The size of its table of registered buffers, with empty slots. `None`
    /// while it is being changed.
    pub nr_bufs: Option<u32>,
    /// The size of its table of registered files, with empty slots.
    pub nr_files: Option<u32>,
    /// What its buffers are and pin, `None` if that could not be verified in
    /// time.
    pub pinned: Option<Pinned>,
    /// To whom that is charged.
    pub charged: Option<Charged>,
}

impl Ring {
    /// The first holder is the owner: `holders` is never empty.
    pub(crate) fn new(inode: u64, details: Details, holders: Vec<Holder>) -> Self {
        Self {
            inode,
            holders,
            creator_uid: details.creator_uid,
            flags: details.flags,
            sq: details.sq,
            cq: details.cq,
            sqpoll: details.sqpoll,
            nr_bufs: details.nr_bufs,
            nr_files: details.nr_files,
            pinned: details.pinned,
            charged: details.charged,
        }
    }

    /// Who holds it: one at least, those with a descriptor first, by pid.
    pub fn holders(&self) -> &[Holder] {
        &self.holders
    }

    /// The process by which the ring is named: the first holder.
    pub fn owner(&self) -> &Holder {
        &self.holders[0]
    }

    /// The holder with this descriptor of this process.
    pub fn holder(&self, pid: u32, fd: Option<RawFd>) -> Option<&Holder> {
        self.holders
            .iter()
            .find(|holder| holder.pid == pid && (fd.is_none() || holder.fd() == fd))
    }
}

/// What a search for rings came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Survey {
    /// The rings that were found, each once, ordered by the first holder.
    pub rings: Vec<Ring>,
    /// Processes that could not be looked at in full.
    pub unseen: Vec<Unseen>,
}

/// A process that could not be looked at in full: rings may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unseen {
    /// The process, in the caller's pid namespace.
    pub pid: u32,
    /// What could not be looked at, and why.
    pub why: String,
}
