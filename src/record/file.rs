//! Open files, and one slot of a ring's table of registered files.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::names;
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

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

/// libc has 0 where open(2) sets it without being asked.
const LARGEFILE: u32 = match () {
    () if cfg!(any(target_arch = "aarch64", target_arch = "arm")) => 0o400_000,
    () if cfg!(any(target_arch = "powerpc", target_arch = "powerpc64")) => 0o200_000,
    () => 0o100_000,
};

bitflags! {
    /// The flags of an open file: `O_*` as fcntl(2) `F_GETFL` has them.
    ///
    /// [`Display`](std::fmt::Display) prints the access mode and the names, joined by
    /// `|`, and a hexadecimal number for bits without a name here.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct FileFlags: u32 {
        /// Open for writing only.
        const O_WRONLY = libc::O_WRONLY as u32;
        /// Open for reading and writing.
        const O_RDWR = libc::O_RDWR as u32;
        /// Was to be created if there was none.
        const O_CREAT = libc::O_CREAT as u32;
        /// Was not to exist.
        const O_EXCL = libc::O_EXCL as u32;
        /// Was not to become the controlling terminal.
        const O_NOCTTY = libc::O_NOCTTY as u32;
        /// Was to be cut to nothing.
        const O_TRUNC = libc::O_TRUNC as u32;
        /// Each write goes to the end.
        const O_APPEND = libc::O_APPEND as u32;
        /// Does not wait.
        const O_NONBLOCK = libc::O_NONBLOCK as u32;
        /// A write ends when data and metadata are on the device.
        const O_SYNC = libc::O_SYNC as u32;
        /// A write ends when data is on the device.
        const O_DSYNC = libc::O_DSYNC as u32;
        /// Signals when it is ready.
        const O_ASYNC = libc::O_ASYNC as u32;
        /// Past the page cache.
        const O_DIRECT = libc::O_DIRECT as u32;
        /// May be larger than 2 GiB: on 64-bit machines true of all that open(2)
        /// opens.
        const O_LARGEFILE = LARGEFILE;
        /// Has no name yet.
        const O_TMPFILE = libc::O_TMPFILE as u32;
        /// Was to be a directory.
        const O_DIRECTORY = libc::O_DIRECTORY as u32;
        /// Was not to be a symbolic link.
        const O_NOFOLLOW = libc::O_NOFOLLOW as u32;
        /// Reading leaves the time of the last access as it is.
        const O_NOATIME = libc::O_NOATIME as u32;
        /// Closed by execve(2), though that is a flag of a descriptor.
        const O_CLOEXEC = libc::O_CLOEXEC as u32;
        /// Names a file, and opens none.
        const O_PATH = libc::O_PATH as u32;
        const _ = !0;
    }
}

impl FileFlags {
    /// `O_RDONLY`, which is not a bit, where neither of the bits for writing is set.
    pub fn is_read_only(self) -> bool {
        !self.intersects(Self::O_WRONLY | Self::O_RDWR)
    }
}

impl fmt::Display for FileFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_read_only() {
            f.write_str("O_RDONLY")?;
            if !self.is_empty() {
                f.write_str("|")?;
            }
        }
        names::write(self, f)
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
    detail: u64,
    nlink: u32,
    dev: u32,
    flags: u32,
    mode: u16,
    kind: u8,
    traits: u8,
}

const _: () = {
    assert!(size_of::<FileIdentity>() == 48 && align_of::<FileIdentity>() == 8);
    assert!(std::mem::offset_of!(FileIdentity, detail) == 24);
    assert!(std::mem::offset_of!(FileIdentity, nlink) == 32);
    assert!(std::mem::offset_of!(FileIdentity, flags) == 40);
    assert!(std::mem::offset_of!(FileIdentity, kind) == 46);
};

/// A kind that no program writes.
const UNKNOWN: u8 = u8::MAX;

/// The end of the path of a file whose name is gone.
///
/// Source: d_path(), fs/d_path.c.
const DELETED_MARK: &[u8] = b" (deleted)";

/// `enum file_traits`
const DELETED: u8 = 1 << 0;
const INTERNAL: u8 = 1 << 1;
const NAMED: u8 = 1 << 2;
const OWN_DEVICE: u8 = 1 << 3;
const MEMFD: u8 = 1 << 4;
const DMABUF: u8 = 1 << 5;
const SECRETMEM: u8 = 1 << 6;
const PIDFD: u8 = 1 << 7;

/// The names of files of anon_inodefs of which a record has the first bytes only.
///
/// Source: the callers of `anon_inode_getfd()` and `anon_inode_getfile()`, Linux 6.1 to 7.2.
const LONG_NAMES: [&str; 18] = [
    "[io_uring_mock]",
    "[landlock-ruleset]",
    "[msm_perfcntrs]",
    "[papr-hvpipe]",
    "[papr-platform-dump]",
    "[userfaultfd]",
    "[vduse-domain]",
    "[vfio-device]",
    "[xe_eu_stall]",
    "gpio-linehandle",
    "hisi_acc_vf_mig",
    "kvm-spapr-tce",
    "kvm-vm-stats",
    "mshv_partition",
    "seccomp notify",
    "syncobj_file",
    "virtiovf_mig",
    "xfs_healthmon",
];

/// Major and minor number, as the kernel has them in one (MINORBITS,
/// include/linux/kdev_t.h).
fn split(device: u32) -> (u32, u32) {
    (device >> 20, device & 0xf_ffff)
}

impl FileIdentity {
    /// A file of which only this is known.
    pub(crate) fn of_unknown_kind(inode: u64, device: u32, pos: i64) -> Self {
        Self {
            file: 0,
            inode,
            pos,
            detail: 0,
            nlink: 0,
            dev: device,
            flags: 0,
            mode: 0,
            kind: UNKNOWN,
            traits: 0,
        }
    }

    fn has(&self, any: u8) -> bool {
        self.traits & any != 0
    }

    fn known(&self) -> bool {
        self.kind != UNKNOWN
    }

    fn is_device(&self) -> bool {
        matches!(self.kind(), FileKind::CharDevice | FileKind::BlockDevice)
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

    /// The number of the inode, as fstat(2) has it on most file systems; most files of
    /// the anonymous inode share one.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Major and minor number of the device that the file system is on
    /// (`sb->s_dev`), as `/proc/PID/mountinfo` has them. On overlayfs and btrfs, stat(2)
    /// has others: see [`FileIdentity::stat_device`].
    pub fn device(&self) -> (u32, u32) {
        split(self.dev)
    }

    /// `st_dev` of stat(2) as major and minor number, where that is known to be
    /// [`FileIdentity::device`]: on ext4, xfs, tmpfs, procfs and others that leave it to
    /// the kernel (generic_fillattr(), fs/stat.c). `None` on overlayfs, btrfs and
    /// others, where [`Descriptors::stat_device`](crate::Descriptors::stat_device) tells
    /// it of a file that also has a descriptor.
    pub fn stat_device(&self) -> Option<(u32, u32)> {
        self.has(OWN_DEVICE).then(|| self.device())
    }

    /// Major and minor number of the device that this file is (`st_rdev`); `None` for
    /// all but character and block devices.
    pub fn rdev(&self) -> Option<(u32, u32)> {
        self.is_device().then(|| split(self.detail as u32))
    }

    /// The size in bytes (`i_size`), as `st_size` of stat(2) on most file systems: 0 for
    /// pipes, sockets and devices. `None` for [`FileKind::Unknown`].
    ///
    /// Read without a lock: another value by the next moment.
    pub fn size(&self) -> Option<u64> {
        let has_none = self.is_device() || self.kind() == FileKind::Eventfd || self.has(NAMED);
        match has_none {
            true => Some(0),
            false => self.known().then_some(self.detail),
        }
    }

    /// The number of links to the inode, as `st_nlink` of stat(2): with 0, its space is
    /// given back when it is used no longer. `None` for [`FileKind::Unknown`].
    pub fn nlink(&self) -> Option<u32> {
        match self.has(NAMED) {
            true => Some(1),
            false => self.known().then_some(self.nlink),
        }
    }

    /// True if the name that the file was opened by has been removed, which the kernel
    /// marks with ` (deleted)` in a path (d_unlinked(), include/linux/dcache.h), or if no
    /// link to the inode is left. A file of which another hard link is left has an
    /// [`nlink`](Self::nlink) above 0.
    ///
    /// `None` for a file that never had a name: pipes, sockets, memfds and other files in
    /// file systems that nobody can mount; and for [`FileKind::Unknown`].
    pub fn is_deleted(&self) -> Option<bool> {
        (self.known() && !self.has(INTERNAL)).then(|| self.has(DELETED))
    }

    /// The kind of a file without a name in a file system: the name that the kernel gives to
    /// files of the anonymous inode, without brackets (`timerfd`, `signalfd`, `inotify`,
    /// `bpf-map`, `eventpoll`, `io_uring`), or `memfd`, `dmabuf` or `secretmem`.
    /// `None` for every other file, and for a name of more than 11 bytes that is not known
    /// to this version of the crate.
    pub fn anon_kind(&self) -> Option<&str> {
        let name = self.anon_name()?;
        let bare = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        Some(bare.unwrap_or(name))
    }

    fn anon_name(&self) -> Option<&str> {
        if self.has(NAMED) {
            return self.text();
        }
        Some(match self.traits & (MEMFD | DMABUF | SECRETMEM | PIDFD) {
            MEMFD => "memfd",
            DMABUF => "dmabuf",
            SECRETMEM => "secretmem",
            PIDFD => "[pidfd]",
            _ if self.kind() == FileKind::Eventfd => "[eventfd]",
            _ => return None,
        })
    }

    /// The name of a file of anon_inodefs, with its brackets if it has some.
    fn text(&self) -> Option<&str> {
        /// The bytes of `detail` and `nlink`.
        const ROOM: usize = 12;
        let from = std::mem::offset_of!(FileIdentity, detail);
        let bytes = &self.as_bytes()[from..from + ROOM];
        match bytes.iter().position(|&b| b == 0) {
            Some(end) => std::str::from_utf8(&bytes[..end]).ok(),
            // Cut, or by chance as long as that.
            None => LONG_NAMES
                .into_iter()
                .find(|name| name.as_bytes().starts_with(bytes)),
        }
    }

    /// The path that the kernel shows for a file without a name in a file system, as far
    /// as this record says it: `pipe:[123]`, `socket:[123]`, `anon_inode:[eventfd]` and
    /// the like, as in `/proc/PID/fd`. `None` for every other file, also for a memfd, of
    /// whose path the name is a part.
    pub fn inner_path(&self) -> Option<String> {
        if !self.has(INTERNAL) {
            return None;
        }
        match self.kind() {
            FileKind::Pipe => Some(format!("pipe:[{}]", self.inode)),
            FileKind::Socket => Some(format!("socket:[{}]", self.inode)),
            FileKind::Eventfd | FileKind::Epoll | FileKind::IoUring | FileKind::AnonInode => {
                Some(format!("anon_inode:{}", self.anon_name()?))
            }
            _ => None,
        }
    }

    /// A path of this file without the ` (deleted)` that the kernel has put at its end. It
    /// has if [`is_deleted`](Self::is_deleted) says so, and for a memfd always; any other
    /// file has that in its name.
    pub fn unmarked<'p>(&self, path: &'p Path) -> &'p Path {
        let marked = self.has(DELETED | MEMFD | SECRETMEM);
        let bytes = path.as_os_str().as_bytes();
        match bytes.strip_suffix(DELETED_MARK) {
            Some(bare) if marked => Path::new(OsStr::from_bytes(bare)),
            _ => path,
        }
    }

    /// The number of an eventfd (`eventfd-id` in `/proc/PID/fdinfo/FD`): equal for equal
    /// eventfds, which all share one inode. `None` for other files.
    ///
    /// Source: `struct eventfd_ctx`, fs/eventfd.c.
    pub fn eventfd_id(&self) -> Option<u32> {
        (self.kind() == FileKind::Eventfd).then_some(self.detail as u32)
    }

    /// `O_*` as open(2) and fcntl(2) `F_GETFL` have them (`f_flags`); 0 for
    /// [`FileKind::Unknown`].
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// [`flags`](Self::flags) by their names.
    pub fn open_flags(&self) -> FileFlags {
        FileFlags::from_bits_retain(self.flags)
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
impl fmt::Debug for FileIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileIdentity")
            .field("kind", &self.kind())
            .field("inode", &self.inode)
            .field("device", &self.device())
            .field("flags", &format_args!("{:#o}", self.flags))
            .field("mode", &format_args!("{:#o}", self.mode))
            .field("position", &self.pos)
            .field("size", &self.size())
            .field("nlink", &self.nlink())
            .field("deleted", &self.is_deleted())
            .field("rdev", &self.rdev())
            .field("anon_kind", &self.anon_kind())
            .field("eventfd_id", &self.eventfd_id())
            .finish()
    }
}

/// One slot of a ring's table of registered files, including direct
/// descriptors: 64 bytes, written in place by the kernel side and lent without a
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

const _: () = assert!(size_of::<RegisteredFile>() == 64 && align_of::<RegisteredFile>() == 8);

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

impl fmt::Debug for RegisteredFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
