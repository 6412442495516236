//! A ring, and the tasks that hold it.

use std::fmt;
use std::os::fd::RawFd;

use bitflags::bitflags;

use crate::names;
use crate::record::{Consistency, RegisteredBuf, RegisteredBufs};

bitflags! {
    /// The flags that a ring was set up with.
    ///
    /// Source: `IORING_SETUP_*`, include/uapi/linux/io_uring.h; io_uring_setup(2).
    ///
    /// [`Display`](std::fmt::Display) prints the names, joined by `|`, and a
    /// hexadecimal number for bits without a name here.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
        /// The SQ is not a ring: it is filled from the start each time (7.0).
        const SQ_REWIND = 1 << 20;
        const _ = !0;
    }
}

impl fmt::Display for SetupFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        names::write(self, f)
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

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptor(fd) => write!(f, "descriptor {fd}"),
            Self::Registered(index) => write!(f, "registered descriptor {index}"),
            Self::Mapping => f.write_str("mapping"),
        }
    }
}

/// A task that holds a ring, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Holder {
    /// The process, in the caller's pid namespace.
    pub pid: u32,
    /// The thread: the leader of the process, except where another thread has
    /// registered descriptors or a descriptor table that it does not share.
    pub tid: u32,
    /// How it holds the ring.
    pub via: Via,
    /// The effective uid of the task, in the initial user namespace (of the
    /// caller's user namespace with the fdinfo backend).
    pub uid: u32,
    /// The name of the process: that of its leader.
    pub name: String,
    /// The name of the thread, if it is not the leader.
    pub thread_name: Option<String>,
    /// All bytes of `name`, if these are not UTF-8: a process may give itself any name.
    pub name_bytes: Option<Vec<u8>>,
    /// The same for `thread_name`.
    pub thread_name_bytes: Option<Vec<u8>>,
}

/// A task as it calls itself: the name of its process, and its own if it is another thread
/// than the leader.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) process: Vec<u8>,
    pub(crate) thread: Option<Vec<u8>>,
}

impl Holder {
    pub(crate) fn new((pid, tid): (u32, u32), via: Via, uid: u32, names: Names) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let raw = |bytes: Vec<u8>| String::from_utf8(bytes).err().map(|e| e.into_bytes());
        Self {
            pid,
            tid,
            via,
            uid,
            name: text(&names.process),
            thread_name: names.thread.as_deref().map(text),
            name_bytes: raw(names.process),
            thread_name_bytes: names.thread.and_then(raw),
        }
    }

    /// The descriptor, `None` for a registered descriptor or a mapping.
    pub fn fd(&self) -> Option<RawFd> {
        match self.via {
            Via::Descriptor(fd) => Some(fd),
            _ => None,
        }
    }
}

/// The SQPOLL thread of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Pinned {
    /// How far these numbers belong together. From a search,
    /// [`Consistency::Verified`] says what it says of a snapshot: the lock was
    /// free before each record and at the end, table and size were the same
    /// before and after, two passes met the same records (by a digest of 64 bits),
    /// and the reader kept its CPU meanwhile.
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
    /// The sums over the buffers of a table.
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

/// The user that the memory of a ring is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Charged {
    /// No user: the creator had `CAP_IPC_LOCK`.
    Exempt,
    /// This user, against `RLIMIT_MEMLOCK`.
    User {
        /// The uid, in the initial user namespace.
        uid: u32,
        /// All bytes that are charged to this user, also for other rings and
        /// by other parts of the kernel (`user_struct.locked_vm`).
        locked_bytes: u64,
    },
}

/// An io_uring instance.
///
/// Values that a backend cannot know are `None`. They are read without a lock
/// while the ring is in use: each is a value that was there, but not all are of
/// one moment. [`Ring::pinned`] says for itself how far its sums belong together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Ring {
    /// The inode of the ring's file: no two live rings have the same.
    pub inode: u64,
    /// Empty only until a search has put its sightings together.
    pub(crate) holders: Vec<Holder>,
    /// The uid of its creator, in the initial user namespace.
    pub creator_uid: Option<u32>,
    /// The flags of its setup.
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
    /// The number of its slots that hold a file: counted twice without a lock, with the
    /// same result. `None` while the table is being changed, and with fdinfo before
    /// Linux 6.18.
    pub nr_files_filled: Option<u32>,
    /// The sums over its buffers, `None` if they could not be verified in
    /// time.
    pub pinned: Option<Pinned>,
    /// The user that this memory is charged to.
    pub charged: Option<Charged>,
}

impl Ring {
    /// A ring of which nothing but the inode is known.
    pub(crate) fn unknown(inode: u64) -> Self {
        Self {
            inode,
            holders: Vec::new(),
            creator_uid: None,
            flags: None,
            sq: None,
            cq: None,
            sqpoll: None,
            nr_bufs: None,
            nr_files: None,
            nr_files_filled: None,
            pinned: None,
            charged: None,
        }
    }

    /// The first holder is the owner, so there has to be one.
    pub(crate) fn held_by(self, holders: Vec<Holder>) -> Self {
        Self { holders, ..self }
    }

    /// Its holders: one at least, those with a descriptor first, by pid.
    pub fn holders(&self) -> &[Holder] {
        &self.holders
    }

    /// The holder that the ring is named after: the first one.
    pub fn owner(&self) -> &Holder {
        &self.holders[0]
    }

    /// The first holder in this process, with this descriptor if one is given.
    pub fn holder(&self, pid: u32, fd: Option<RawFd>) -> Option<&Holder> {
        self.holders
            .iter()
            .find(|holder| holder.pid == pid && (fd.is_none() || holder.fd() == fd))
    }
}

/// The result of a search for rings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[must_use]
#[non_exhaustive]
pub struct Survey {
    /// The rings that were found, each once, ordered by the first holder.
    pub rings: Vec<Ring>,
    /// Processes that could not be searched in full.
    pub unseen: Vec<Unseen>,
}

impl IntoIterator for Survey {
    type Item = Ring;
    type IntoIter = std::vec::IntoIter<Ring>;

    /// The rings.
    fn into_iter(self) -> Self::IntoIter {
        self.rings.into_iter()
    }
}

impl<'a> IntoIterator for &'a Survey {
    type Item = &'a Ring;
    type IntoIter = std::slice::Iter<'a, Ring>;

    /// The rings.
    fn into_iter(self) -> Self::IntoIter {
        self.rings.iter()
    }
}

/// A process that could not be searched in full: rings may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Unseen {
    /// The process, in the caller's pid namespace.
    pub pid: u32,
    /// The part that could not be searched, and the reason.
    pub why: UnseenReason,
}

/// Why a process could not be searched in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnseenReason {
    /// Its mappings: its `mmap_lock` was taken.
    MmapLocked,
    /// Its descriptors: their table kept changing.
    DescriptorsChanging,
    /// Its descriptors: the caller may not read them in /proc (EACCES).
    NotPermitted,
}

impl fmt::Display for UnseenReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MmapLocked => "its mappings could not be searched: its mmap_lock was taken",
            Self::DescriptorsChanging => {
                "its descriptors could not be searched: they kept changing"
            }
            Self::NotPermitted => "the caller may not read its descriptors",
        })
    }
}

/// Equal for equal rings. The address of a ring may be that of another one by
/// the next search, so the inode belongs to it.
pub(crate) type Key = (u64, u64);

/// One way in which a task holds a ring, as a backend saw it.
#[derive(Debug, Clone)]
pub(crate) struct Sighting {
    /// The ring, opaque, and its inode.
    pub(crate) key: Key,
    pub(crate) holder: Holder,
    /// Equal for threads that share their descriptors, opaque.
    pub(crate) files: u64,
    /// The ring as far as it is known, still without holders; at least one
    /// sighting of each ring has it.
    pub(crate) ring: Option<Ring>,
}

/// The sightings of one look at processes.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) sightings: Vec<Sighting>,
    pub(crate) unseen: Vec<Unseen>,
}
