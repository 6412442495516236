//! io_uring_setup(2), io_uring_register(2) and io_uring_enter(2).
//!
//! Why registering any address is safe: registration pins pages and stores
//! numbers. Memory is written only by requests, and those that the kit submits
//! write to a mapping that outlives them, or to registered pages, to which no
//! reference is ever lent (see submit.rs).

use std::ffi::c_void;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::check;
use super::Mapping;
use crate::uapi::{self, CloneBuffers, IoVec, Params, RsrcRegister, RsrcUpdate2};

/// What io_uring_register(2) is asked about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    fd: RawFd,
    op_flags: u32,
}

impl From<BorrowedFd<'_>> for Target {
    fn from(fd: BorrowedFd<'_>) -> Self {
        Self {
            fd: fd.as_raw_fd(),
            op_flags: 0,
        }
    }
}

impl Target {
    /// A ring of the calling task's registered rings.
    pub(crate) fn registered(index: u32) -> Self {
        Self {
            fd: index as RawFd,
            op_flags: uapi::REGISTER_USE_REGISTERED_RING,
        }
    }

    /// Whether this is an index, not a descriptor.
    pub(crate) fn is_registered(self) -> bool {
        self.op_flags != 0
    }

    pub(crate) fn number(self) -> u32 {
        self.fd as u32
    }
}

/// io_uring_setup(2) for a ring with a descriptor.
pub(crate) fn setup(entries: u32, params: &mut Params) -> io::Result<OwnedFd> {
    assert_eq!(params.flags & uapi::SETUP_NO_MMAP, 0, "needs setup_fdless");
    // SAFETY: the kernel reads and writes one Params, which is ours for the
    // call; without NO_MMAP it keeps no address.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, params as *mut Params) };
    let fd = check(fd)? as RawFd;
    // SAFETY: the call just returned it: open, and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// io_uring_setup(2) with NO_MMAP and REGISTERED_FD_ONLY: the ring lives in the
/// memory given, and the index of the registered ring comes back.
pub(crate) fn setup_fdless(
    entries: u32,
    params: &mut Params,
    rings: &Mapping,
    sqes: &Mapping,
) -> io::Result<u32> {
    params.flags |= uapi::SETUP_NO_MMAP | uapi::SETUP_REGISTERED_FD_ONLY;
    params.cq_off.user_addr = rings.addr();
    params.sq_off.user_addr = sqes.addr();
    // SAFETY: the kernel writes Params and pins the two mappings, which are
    // mapped now; it writes to them for the life of the ring, and the kit reads
    // them with atomic loads only. Pinned pages outlive an munmap.
    let index = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, params as *mut Params) };
    Ok(check(index)? as u32)
}

/// io_uring_enter(2) which waits for nothing: it flushes overflowed completions,
/// runs what the task owes the ring, and submits up to `submit` requests. With
/// SQPOLL it wakes the thread that does.
pub(crate) fn enter(target: Target, submit: u32) -> io::Result<usize> {
    let registered = if target.is_registered() {
        uapi::ENTER_REGISTERED_RING
    } else {
        0
    };
    let flags = uapi::ENTER_GETEVENTS | uapi::ENTER_SQ_WAKEUP | registered;
    let (call, none) = (libc::SYS_io_uring_enter, std::ptr::null::<c_void>());
    // SAFETY: no signal mask to read. What is submitted was written by
    // TestRing::push alone, whose requests own the memory they name until they
    // are complete, or leave it mapped for ever.
    check(unsafe { libc::syscall(call, target.fd, submit, 0, flags, none, 0_usize) })
}

/// io_uring_register(2).
///
/// # Safety
/// `arg` must be what `op` wants, valid for `nr` elements (or bytes), as must
/// all that it points to.
unsafe fn register(target: Target, op: u32, arg: *const c_void, nr: usize) -> io::Result<usize> {
    let op = op | target.op_flags;
    // SAFETY: passed on to the caller.
    check(unsafe { libc::syscall(libc::SYS_io_uring_register, target.fd, op, arg, nr) })
}

/// Opcodes which take no argument at all.
pub(crate) fn register_bare(target: Target, op: u32) -> io::Result<()> {
    assert!(matches!(
        op,
        uapi::UNREGISTER_BUFFERS | uapi::UNREGISTER_FILES | uapi::REGISTER_ENABLE_RINGS
    ));
    // SAFETY: these opcodes refuse any argument.
    unsafe { register(target, op, std::ptr::null(), 0) }.map(drop)
}

pub(crate) fn register_buffers(target: Target, bufs: &[IoVec]) -> io::Result<()> {
    let op = uapi::REGISTER_BUFFERS;
    // SAFETY: the kernel reads `len` iovecs from the slice; see the file's
    // documentation for their addresses.
    unsafe { register(target, op, bufs.as_ptr().cast(), bufs.len()) }.map(drop)
}

pub(crate) fn register_files(target: Target, files: &[RawFd]) -> io::Result<()> {
    let op = uapi::REGISTER_FILES;
    // SAFETY: the kernel reads `len` descriptor numbers from the slice.
    unsafe { register(target, op, files.as_ptr().cast(), files.len()) }.map(drop)
}

pub(crate) fn register_tagged(target: Target, bufs: &[IoVec], tags: &[u64]) -> io::Result<()> {
    assert_eq!(bufs.len(), tags.len());
    let arg = RsrcRegister {
        nr: bufs.len() as u32,
        data: bufs.as_ptr() as u64,
        tags: tags.as_ptr() as u64,
        ..RsrcRegister::default()
    };
    let (op, arg) = (uapi::REGISTER_BUFFERS2, &raw const arg);
    // SAFETY: the kernel reads one RsrcRegister of the size given, and through
    // it `nr` elements of each slice, which have that length.
    unsafe { register(target, op, arg.cast(), size_of::<RsrcRegister>()) }.map(drop)
}

pub(crate) fn register_files_tagged(
    target: Target,
    files: &[RawFd],
    tags: &[u64],
) -> io::Result<()> {
    assert_eq!(files.len(), tags.len());
    let arg = RsrcRegister {
        nr: files.len() as u32,
        data: files.as_ptr() as u64,
        tags: tags.as_ptr() as u64,
        ..RsrcRegister::default()
    };
    let (op, arg) = (uapi::REGISTER_FILES2, &raw const arg);
    // SAFETY: as in register_tagged.
    unsafe { register(target, op, arg.cast(), size_of::<RsrcRegister>()) }.map(drop)
}

/// Returns how many slots were replaced, which may be less than asked for.
pub(crate) fn update_files(
    target: Target,
    offset: u32,
    files: &[RawFd],
    tags: &[u64],
) -> io::Result<usize> {
    assert_eq!(files.len(), tags.len());
    let arg = RsrcUpdate2 {
        offset,
        data: files.as_ptr() as u64,
        tags: tags.as_ptr() as u64,
        nr: files.len() as u32,
        ..RsrcUpdate2::default()
    };
    let (op, arg) = (uapi::REGISTER_FILES_UPDATE2, &raw const arg);
    // SAFETY: as in register_tagged.
    unsafe { register(target, op, arg.cast(), size_of::<RsrcUpdate2>()) }
}

/// An empty table of `nr` slots: `op` says of buffers or of files.
pub(crate) fn register_sparse(target: Target, op: u32, nr: u32) -> io::Result<()> {
    assert!(matches!(
        op,
        uapi::REGISTER_BUFFERS2 | uapi::REGISTER_FILES2
    ));
    let flags = uapi::RSRC_REGISTER_SPARSE;
    let arg = RsrcRegister {
        nr,
        flags,
        ..RsrcRegister::default()
    };
    let arg = &raw const arg;
    // SAFETY: the kernel reads one RsrcRegister, which holds no address.
    unsafe { register(target, op, arg.cast(), size_of::<RsrcRegister>()) }.map(drop)
}

/// Returns how many slots were replaced, which may be less than asked for.
pub(crate) fn update_buffers(
    target: Target,
    offset: u32,
    bufs: &[IoVec],
    tags: &[u64],
) -> io::Result<usize> {
    assert_eq!(bufs.len(), tags.len());
    let arg = RsrcUpdate2 {
        offset,
        data: bufs.as_ptr() as u64,
        tags: tags.as_ptr() as u64,
        nr: bufs.len() as u32,
        ..RsrcUpdate2::default()
    };
    let (op, arg) = (uapi::REGISTER_BUFFERS_UPDATE, &raw const arg);
    // SAFETY: as in register_tagged.
    unsafe { register(target, op, arg.cast(), size_of::<RsrcUpdate2>()) }
}

pub(crate) fn clone_buffers(target: Target, source: Target) -> io::Result<()> {
    let flags = if source.is_registered() {
        uapi::CLONE_SRC_REGISTERED
    } else {
        0
    };
    let arg = CloneBuffers {
        src_fd: source.number(),
        flags,
        ..CloneBuffers::default()
    };
    let (op, arg) = (uapi::REGISTER_CLONE_BUFFERS, &raw const arg);
    // SAFETY: the kernel reads one CloneBuffers, which holds no address.
    unsafe { register(target, op, arg.cast(), 1) }.map(drop)
}

/// Puts a ring among the registered rings of the calling task; gives its index.
pub(crate) fn register_ring(ring: BorrowedFd<'_>) -> io::Result<u32> {
    let mut arg = RsrcUpdate2 {
        offset: u32::MAX, // any that is free
        data: ring.as_raw_fd() as u64,
        ..RsrcUpdate2::default()
    };
    let (op, at) = (uapi::REGISTER_RING_FDS, &raw mut arg);
    // SAFETY: the kernel reads and writes one io_uring_rsrc_update, the head of `arg`.
    unsafe { register(ring.into(), op, at.cast(), 1) }?;
    Ok(arg.offset)
}

/// Gives back a registered ring of the calling task.
pub(crate) fn unregister_ring(index: u32) -> io::Result<()> {
    let arg = RsrcUpdate2 {
        offset: index,
        ..RsrcUpdate2::default()
    };
    let (op, arg) = (uapi::UNREGISTER_RING_FDS, &raw const arg);
    // SAFETY: the kernel reads one io_uring_rsrc_update, the head of `arg`.
    unsafe { register(Target::registered(index), op, arg.cast(), 1) }.map(drop)
}

/// IORING_REGISTER_PROBE for so many opcodes, its argument at the start of `page`.
/// It changes nothing in the ring, and copies from `page` under uring_lock.
pub(crate) fn probe(target: Target, page: &Mapping, ops: usize) -> io::Result<()> {
    assert!(page.size() >= 16 + 8 * ops, "struct io_uring_probe");
    let arg = page.addr() as *const c_void;
    // SAFETY: the kernel reads and writes 16 bytes, and 8 for each op, inside
    // the mapping, to which the kit lends no reference.
    unsafe { register(target, uapi::REGISTER_PROBE, arg, ops) }.map(drop)
}
