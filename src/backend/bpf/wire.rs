//! The structures by which the backends and their BPF programs speak. Not public:
//! kernel addresses occur in them, as keys that are compared and never shown.

use std::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct walk_request`
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct WalkRequest {
    pub(crate) inode: u64,
    pub(crate) slot: u64,
    pub(crate) set: u64,
    pub(crate) page_base: u64,
    pub(crate) pidns: u64,
    pub(crate) mode: u32,
    pub(crate) observer: u32,
    pub(crate) pidns_level: u32,
    pub(crate) capacity: u32,
    pub(crate) tid: u32,
    pub(crate) via: u32,
    pub(crate) at: u32,
    pub(crate) anywhere: u8,
    pub(crate) page_shift: u8,
    pub(crate) cold: u8,
    pub(crate) pad: u8,
}

/// `enum walk_mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Mode {
    Verified = 1,
    Raw = 2,
    Peek = 3,
    Locked = 4,
}

/// `struct walk_reply`
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct WalkReply {
    pub(crate) status: u32,
    pub(crate) nr_slots: u32,
    pub(crate) owner: u64,
    pub(crate) owner_pid: u32,
    pub(crate) owner_tid: u32,
    pub(crate) owner_sleeps: u32,
    pub(crate) pidns_level: u32,
    pub(crate) pidns: u64,
    pub(crate) set: u64,
    pub(crate) tid: u32,
    pub(crate) via: u32,
    pub(crate) at: u32,
    pub(crate) pad: u32,
    pub(crate) owner_comm: [u8; 16],
}

/// `enum walk_status`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    NotFound,
    Done,
    Changed,
    LockHeld,
    TooMany,
    NotLocked,
    CutShort,
    NoSlot,
    NoLookup,
    Unseen,
    Another,
}

impl WalkReply {
    /// `None` for a number that no program writes.
    pub(crate) fn status(&self) -> Option<Status> {
        Some(match self.status {
            0 => Status::NotFound,
            1 => Status::Done,
            2 => Status::Changed,
            3 => Status::LockHeld,
            4 => Status::TooMany,
            5 => Status::NotLocked,
            6 => Status::CutShort,
            7 => Status::NoSlot,
            8 => Status::NoLookup,
            9 => Status::Unseen,
            10 => Status::Another,
            _ => return None,
        })
    }
}

/// `struct descriptor`
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct Descriptor {
    file: u64,
    inode: u64,
    pub(crate) fd: i32,
    pad: u32,
}

impl Descriptor {
    /// That of the file that it is of.
    pub(crate) fn key(&self) -> (u64, u64) {
        (self.file, self.inode)
    }
}

/// `struct file_path`
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct FilePath {
    pub(crate) len: i64,
    pub(crate) text: [u8; 4096],
}

impl Default for FilePath {
    fn default() -> Self {
        Self {
            len: 0,
            text: [0; 4096],
        }
    }
}

/// `struct find_request`
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct FindRequest {
    pub(crate) run: u64,
    pub(crate) page_shift: u8,
    pub(crate) part: u8,
    pub(crate) alone: u8,
    pub(crate) pad: [u8; 5],
}

/// `struct find_reply`
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct FindReply {
    pub(crate) nr: u64,
}

/// `struct frame_request`
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct FrameRequest {
    pub(crate) inode: u64,
    pub(crate) fd: i32,
    pub(crate) pad: u32,
}

/// `struct frame_reply`
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct FrameReply {
    pub(crate) page: u64,
    pub(crate) page_bytes: u32,
    pub(crate) linear: u32,
}

/// `enum holder_via`
pub(crate) const VIA_DESCRIPTOR: u32 = 0;
pub(crate) const VIA_REGISTERED: u32 = 1;
pub(crate) const VIA_MAPPING: u32 = 2;
pub(crate) const VIA_UNSEEN: u32 = 3;
pub(crate) const VIA_UNSEEN_FDS: u32 = 4;

/// `enum find_part`
pub(crate) const FIND_HELD: u8 = 0;
pub(crate) const FIND_MAPPED: u8 = 1;

/// `enum ring_flags`
pub(crate) const RING_SUM_VERIFIED: u32 = 1 << 0;
pub(crate) const RING_SQPOLL_THREAD: u32 = 1 << 1;
pub(crate) const RING_CHARGED: u32 = 1 << 2;
pub(crate) const RING_ACCT_KNOWN: u32 = 1 << 3;
pub(crate) const RING_DESCRIBED: u32 = 1 << 4;

/// `struct ring_sighting`
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct RingSighting {
    pub(crate) ring: u64,
    pub(crate) files: u64,
    pub(crate) inode: u64,
    pub(crate) pages: u64,
    pub(crate) acct_pages: u64,
    pub(crate) user_locked_pages: u64,
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) fd: i32,
    pub(crate) via: u32,
    pub(crate) uid: u32,
    pub(crate) creator_uid: u32,
    pub(crate) charged_uid: u32,
    pub(crate) setup_flags: u32,
    pub(crate) sq_entries: u32,
    pub(crate) cq_entries: u32,
    pub(crate) sq_head: u32,
    pub(crate) sq_tail: u32,
    pub(crate) cq_head: u32,
    pub(crate) cq_tail: u32,
    pub(crate) nr_bufs: u32,
    pub(crate) nr_files: u32,
    pub(crate) sqpoll_tid: u32,
    pub(crate) sqpoll_cpu: i32,
    pub(crate) flags: u32,
    pub(crate) nr_filled: u32,
    pub(crate) comm: [u8; 16],
    pub(crate) thread_comm: [u8; 16],
    pub(crate) nr_files_filled: u32,
    pub(crate) pad: u32,
}

/// `struct epoll_sighting`
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct EpollSighting {
    pub(crate) set: u64,
    pub(crate) files: u64,
    pub(crate) inode: u64,
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) fd: i32,
    pub(crate) via: u32,
    pub(crate) uid: u32,
    pub(crate) pad: u32,
    pub(crate) comm: [u8; 16],
    pub(crate) thread_comm: [u8; 16],
}

const _: () = {
    assert!(size_of::<WalkRequest>() == 72);
    assert!(offset_of!(WalkRequest, page_base) == 24);
    assert!(offset_of!(WalkRequest, mode) == 40);
    assert!(offset_of!(WalkRequest, tid) == 56);
    assert!(offset_of!(WalkRequest, at) == 64);
    assert!(offset_of!(WalkRequest, page_shift) == 69);
    assert!(size_of::<WalkReply>() == 80);
    assert!(offset_of!(WalkReply, owner) == 8);
    assert!(offset_of!(WalkReply, set) == 40);
    assert!(offset_of!(WalkReply, tid) == 48);
    assert!(offset_of!(WalkReply, owner_comm) == 64);
    assert!(size_of::<Descriptor>() == 24 && size_of::<FilePath>() == 4104);
    assert!(size_of::<FindRequest>() == 16 && size_of::<FindReply>() == 8);
    assert!(size_of::<FrameRequest>() == 16 && size_of::<FrameReply>() == 16);
    assert!(offset_of!(FrameRequest, fd) == 8);
    assert!(offset_of!(FrameReply, page_bytes) == 8);
    assert!(offset_of!(FrameReply, linear) == 12);
    assert!(size_of::<RingSighting>() == 168);
    assert!(offset_of!(RingSighting, pid) == 48);
    assert!(offset_of!(RingSighting, setup_flags) == 76);
    assert!(offset_of!(RingSighting, nr_bufs) == 104);
    assert!(offset_of!(RingSighting, comm) == 128);
    assert!(offset_of!(RingSighting, nr_files_filled) == 160);
    assert!(size_of::<EpollSighting>() == 80);
    assert!(offset_of!(EpollSighting, inode) == 16);
    assert!(offset_of!(EpollSighting, pid) == 24);
    assert!(offset_of!(EpollSighting, uid) == 40);
    assert!(offset_of!(EpollSighting, comm) == 48);
};

/// The name of a task: bytes up to the first NUL.
pub(crate) fn comm_bytes(bytes: &[u8; 16]) -> &[u8] {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

/// The same as text.
pub(crate) fn comm(bytes: &[u8; 16]) -> String {
    String::from_utf8_lossy(comm_bytes(bytes)).into_owned()
}
