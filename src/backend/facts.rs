//! Facts that backends give beside records.

use std::os::fd::RawFd;

/// The facts that the kernel gives about a link.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct LinkInfo {
    /// The id by which `bpftool link show id` knows it.
    pub id: u32,
    /// The iterator target, as `io_uring_buf`.
    pub target: String,
    /// The inode of the ring's file; for an epoll set, the inode that all of
    /// them share.
    pub inode: u64,
    /// The number of the epoll set, which no other set ever has; `None` for a
    /// ring.
    pub ep_id: Option<u64>,
}

/// One open descriptor of a process, and the key of its file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descriptor {
    pub(crate) fd: RawFd,
    /// As [`FileIdentity::key`](crate::FileIdentity) has it.
    pub(crate) file: (u64, u64),
}
