//! Open files, and one slot of a ring's table of registered files.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::record::Check;

/// The kind of a file, by the mode of its inode, or by its name where it has no
/// mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file, also in memory (memfd).
    Regular,
    /// A directory.
    Directory,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A pipe or FIFO.
    Pipe,
    /// A socket.
    Socket,
    /// An eventfd.
    Eventfd,
    /// An epoll set.
    Epoll,
    /// An io_uring instance.
    IoUring,
    /// Another file of the kernel's anonymous inode: timerfd, signalfd,
    /// pidfd, a BPF object and the like.
    AnonInode,
    /// None of these.
    Other,
    /// Not known to this backend: fdinfo shows inode, device and position of
    /// the files in an epoll set, and nothing else of them.
    Unknown,
}

impl std::fmt::Display for FileKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Regular => "regular",
            Self::Directory => "directory",
            Self::CharDevice => "char device",
            Self::BlockDevice => "block device",
            Self::Pipe => "pipe",
            Self::Socket => "socket",
            Self::Eventfd => "eventfd",
            Self::Epoll => "epoll",
            Self::IoUring => "io_uring",
            Self::AnonInode => "anon inode",
            Self::Other => "other",
            Self::Unknown => "unknown",
        })
    }
}

/// The identity of an open file (`struct file`): two descriptors that share
/// their position are one file, and two opens of one path are two.
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FileIdentity {
    file: u64,
    inode: u64,
    pos: i64,
    dev_major: u32,
    dev_minor: u32,
    flags: u32,
    mode: u16,
    kind: u8,
    pad: u8,
}

const _: () = {
    assert!(size_of::<FileIdentity>() == 40 && align_of::<FileIdentity>() == 8);
    assert!(std::mem::offset_of!(FileIdentity, dev_major) == 24);
    assert!(std::mem::offset_of!(FileIdentity, flags) == 32);
    assert!(std::mem::offset_of!(FileIdentity, kind) == 38);
};

/// A kind that no program writes.
const UNKNOWN: u8 = u8::MAX;

impl FileIdentity {
    /// A file whose kind, flags and mode are not known.
    pub(crate) fn of_unknown_kind(inode: u64, device: u32, pos: i64) -> Self {
        Self {
            file: 0,
            inode,
            pos,
            dev_major: device >> 20, // MINORBITS, include/linux/kdev_t.h
            dev_minor: device & 0xf_ffff,
            flags: 0,
            mode: 0,
            kind: UNKNOWN,
            pad: 0,
        }
    }

    /// The kind of the file.
    pub fn kind(&self) -> FileKind {
        match self.kind {
            1 => FileKind::Regular,
            2 => FileKind::Directory,
            3 => FileKind::CharDevice,
            4 => FileKind::BlockDevice,
            5 => FileKind::Pipe,
            6 => FileKind::Socket,
            7 => FileKind::Eventfd,
            8 => FileKind::Epoll,
            9 => FileKind::IoUring,
            10 => FileKind::AnonInode,
            UNKNOWN => FileKind::Unknown,
            _ => FileKind::Other,
        }
    }

    /// The number of the inode, as fstat(2) has it; all files of the anonymous
    /// inode share one.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Major and minor number of the device that the file system is on
    /// (`sb->s_dev`), as fstat(2) has them on most file systems, but not on
    /// overlayfs and btrfs.
    pub fn device(&self) -> (u32, u32) {
        (self.dev_major, self.dev_minor)
    }

    /// `O_*` as open(2) and fcntl(2) `F_GETFL` have them (`f_flags`); 0 for
    /// [`FileKind::Unknown`].
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// `S_IF*` and permissions of the inode, as `st_mode` of stat(2); 0
    /// for [`FileKind::Unknown`].
    pub fn mode(&self) -> u16 {
        self.mode
    }

    /// The position in bytes (`f_pos`), as lseek(2) has it.
    pub fn position(&self) -> i64 {
        self.pos
    }

    /// True if both are the same open file, in two records that were read
    /// while that was open; never for [`FileKind::Unknown`].
    pub fn same_file(&self, other: &Self) -> bool {
        self.file != 0 && self.file == other.file && self.inode == other.inode
    }

    pub(crate) fn key(&self) -> (u64, u64) {
        (self.file, self.inode)
    }

    /// True for all zeroes, which stand for no file.
    pub(crate) fn is_none(&self) -> bool {
        self.kind == 0
    }

    /// Says what is wrong with a kind that no program of ours has written.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.kind {
            0..=11 => Ok(()),
            kind => Err(format!("file kind {kind}")),
        }
    }
}

/// Without the address that is the file's key.
impl std::fmt::Debug for FileIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileIdentity")
            .field("kind", &self.kind())
            .field("inode", &self.inode)
            .field("device", &self.device())
            .field("flags", &format_args!("{:#o}", self.flags))
            .field("mode", &format_args!("{:#o}", self.mode))
            .field("position", &self.pos)
            .finish()
    }
}

/// One slot of a ring's table of registered files, including direct
/// descriptors: 56 bytes, written in place by the kernel side and lent without a
/// copy.
///
/// Source: `struct io_rsrc_node` and `struct io_fixed_file`,
/// io_uring/filetable.h, io_uring/rsrc.h; `struct file`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RegisteredFile {
    index: u64,
    tag: u64,
    file: FileIdentity,
}

const _: () = assert!(size_of::<RegisteredFile>() == 56 && align_of::<RegisteredFile>() == 8);

impl RegisteredFile {
    /// The slot's index, counted from 0: `fd` of a request with
    /// `IOSQE_FIXED_FILE`.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// True for a slot that holds no file.
    pub fn is_empty_slot(&self) -> bool {
        self.file.is_none()
    }

    /// The tag that was given at registration, 0 for none.
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// The file, `None` for an empty slot.
    pub fn file(&self) -> Option<&FileIdentity> {
        (!self.is_empty_slot()).then_some(&self.file)
    }
}

impl Check for RegisteredFile {
    fn check(&self, at: usize, _page_shift: u8) -> Result<(), String> {
        if self.index != at as u64 {
            return Err(format!("record {at} carries index {}", self.index));
        }
        self.file
            .check()
            .map_err(|what| format!("record {at}: {what}"))
    }
}

impl std::fmt::Debug for RegisteredFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.file() {
            None => write!(f, "RegisteredFile {{ index: {}, empty }}", self.index),
            Some(file) => f
                .debug_struct("RegisteredFile")
                .field("index", &self.index)
                .field("tag", &self.tag)
                .field("file", file)
                .finish(),
        }
    }
}
