//! A process that lets another one carry out one of its system calls: user
//! notification of seccomp(2).
//!
//! The process installs a filter. From then on dup(2) asks the owner of the
//! [`Listener`] for a descriptor, and waits until it is given one. Nearly every
//! other call is refused.

use std::ffi::{c_int, c_long};
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;
use rustix::io_uring::IoringRegisterOp;
use rustix::ioctl::{ioctl, IntegerSetter, Setter, Updater};

/// The owner's end.
pub(super) struct Listener(OwnedFd);

/// The process waits in dup(2).
pub(super) struct Asked {
    /// Never given twice by one listener.
    pub(super) id: u64,
    /// The number that it has passed to dup(2).
    pub(super) number: u32,
}

// include/uapi/linux/seccomp.h
const RECV: u32 = libc::SECCOMP_IOCTL_NOTIF_RECV as u32;
const ADDFD: u32 = libc::SECCOMP_IOCTL_NOTIF_ADDFD as u32;
const SET_FLAGS: u32 = libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS as u32;
/// SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (Linux 6.6)
const SYNC_WAKE_UP: usize = 1;

impl Listener {
    /// Takes over the descriptor that [`ask_from_now_on`] gave.
    ///
    /// # Safety
    ///
    /// It is open and nobody else's.
    pub(super) unsafe fn from_raw(listener: c_int) -> Self {
        // SAFETY: the caller's promise.
        let listener = unsafe { OwnedFd::from_raw_fd(listener) };
        // SAFETY: this request takes a number.
        let flags = unsafe { IntegerSetter::<SET_FLAGS>::new_usize(SYNC_WAKE_UP) };
        // Each of the two waits while the other one works: they may share a CPU.
        // Without it a wait is longer, and nothing else changes.
        // SAFETY: as above.
        let _ = unsafe { ioctl(&listener, flags) };
        Self(listener)
    }

    /// The request of the process. It does not wait once the descriptor was readable.
    ///
    /// # Errors
    ///
    /// ENOENT if a signal has interrupted the process: it asks again unless it has
    /// ended. EINTR.
    pub(super) fn receive(&self) -> Result<Asked, Errno> {
        // SAFETY: plain data, of which zeroes are values; the kernel wants them.
        let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the structure that this request fills in.
        let receive = unsafe { Updater::<RECV, _>::new(&mut asked) };
        // SAFETY: as above.
        unsafe { ioctl(&self.0, receive) }?;
        Ok(Asked {
            id: asked.id,
            // As much of it as dup(2) takes.
            number: asked.data.args[0] as u32,
        })
    }

    /// Gives the process a copy of a descriptor, as the result of its dup(2).
    ///
    /// # Errors
    ///
    /// ENOENT, ESRCH, EINPROGRESS or EINTR if a signal has interrupted the process or
    /// this thread: it has not got it, and asks again unless it has ended. Its dup(2) may
    /// have come back with 0 then, which is not a descriptor that it was given
    /// (seccomp_notify_addfd() takes the descriptor back, but not the answer).
    pub(super) fn give(&self, id: u64, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        let given = libc::seccomp_notif_addfd {
            id,
            flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
            srcfd: fd.as_raw_fd() as u32,
            newfd: 0,
            newfd_flags: 0,
        };
        // SAFETY: the structure that this request reads.
        let give = unsafe { Setter::<ADDFD, _>::new(given) };
        // SAFETY: as above.
        unsafe { ioctl(&self.0, give) }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// AUDIT_ARCH_* of include/uapi/linux/audit.h; 0, which no call has, for what is not
/// listed.
const ARCH: u32 = {
    const LITTLE_64: u32 = 0xc000_0000;
    if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
        LITTLE_64 | 62
    } else if cfg!(target_arch = "aarch64") {
        LITTLE_64 | 183
    } else if cfg!(target_arch = "riscv64") {
        LITTLE_64 | 243
    } else {
        0
    }
};

const LEN: usize = 14;
/// The calls that the process may make: ask; make the call that it is there for, close what it was
/// given, and end; and before that let its owner go on.
static FILTER: [libc::sock_filter; LEN] = [
    load(offset_of!(libc::seccomp_data, arch)),
    equal(ARCH, 0, DENY - 2),
    load(offset_of!(libc::seccomp_data, nr)),
    equal(libc::SYS_dup as u32, NOTIFY - 4, 0),
    equal(libc::SYS_close as u32, ALLOW - 5, 0),
    equal(libc::SYS_exit_group as u32, ALLOW - 6, 0),
    equal(libc::SYS_close_range as u32, ALLOW - 7, 0),
    equal(libc::SYS_futex as u32, ALLOW - 8, 0),
    equal(libc::SYS_io_uring_register as u32, 0, DENY - 9),
    // The operation. Others could lend the ring what the process may do.
    load(offset_of!(libc::seccomp_data, args) + size_of::<u64>()),
    equal(
        IoringRegisterOp::RegisterProbe as u32,
        ALLOW - 11,
        DENY - 11,
    ),
    answer(libc::SECCOMP_RET_USER_NOTIF),
    answer(libc::SECCOMP_RET_ALLOW),
    answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
];
/// Where its answers are.
const NOTIFY: u8 = 11;
const ALLOW: u8 = 12;
const DENY: u8 = 13;

const fn load(offset: usize) -> libc::sock_filter {
    instruction(
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        0,
        0,
        offset as u32,
    )
}

/// Skips so many instructions, if it is equal and if not.
const fn equal(value: u32, then: u8, otherwise: u8) -> libc::sock_filter {
    let code = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    instruction(code, then, otherwise, value)
}

const fn answer(value: u32) -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, value)
}

const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    let code = code as u16;
    libc::sock_filter { code, jt, jf, k }
}

/// Installs the filter for the caller: the descriptor of the listener.
///
/// # Errors
///
/// EACCES without `no_new_privs`; EBUSY if the caller already has a filter with a
/// listener; ENOSYS or EINVAL if the kernel was built without filters.
pub(super) fn ask_from_now_on() -> Result<c_int, Errno> {
    let program = libc::sock_fprog {
        len: LEN as u16,
        filter: ptr::from_ref(&FILTER)
            .cast::<libc::sock_filter>()
            .cast_mut(),
    };
    // SAFETY: the kernel only reads the program, which says its length. Of the calls
    // that are refused from now on the caller needs none.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            c_long::from(libc::SECCOMP_SET_MODE_FILTER),
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            ptr::from_ref(&program),
        )
    };
    // No heap: the caller may be a process that shares the memory of another one.
    let error = io::Error::last_os_error().raw_os_error();
    match c_int::try_from(listener) {
        Ok(listener @ 0..) => Ok(listener),
        _ => Err(Errno::from_raw_os_error(error.unwrap_or(libc::EINVAL))),
    }
}
