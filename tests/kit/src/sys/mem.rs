//! Memory: mappings, and the userfaultfd that can guard one.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::check;
use crate::uapi::{self, UffdioApi, UffdioRange};

/// The size of a base page in bytes.
pub fn page_size() -> usize {
    // SAFETY: sysconf takes a constant and touches no memory of ours.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).expect("the page size is positive")
}

/// An owned memory mapping: unmapped on drop. The address is a number, so that
/// a mapping may go to another thread.
#[derive(Debug)]
pub(crate) struct Mapping {
    addr: usize,
    len: usize,
}

impl Mapping {
    fn new(len: usize, flags: i32, fd: RawFd, offset: i64) -> io::Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: without MAP_FIXED the kernel picks a free range, so that no
        // memory in use is replaced; a bad length or fd is refused.
        let addr = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, fd, offset) };
        if addr == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            addr: addr as usize,
            len,
        })
    }

    /// Private anonymous memory of base pages, populated lazily.
    pub(crate) fn anonymous(len: usize) -> io::Result<Self> {
        let map = Self::new(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)?;
        // SAFETY: the range is exactly the mapping just made, and the advice
        // changes no contents.
        let _no_thp_in_this_kernel =
            unsafe { libc::madvise(map.addr as *mut c_void, len, libc::MADV_NOHUGEPAGE) };
        Ok(map)
    }

    /// Private anonymous memory of huge pages of the default size.
    pub(crate) fn huge(len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
        Self::new(len, flags, -1, 0)
    }

    /// A part of a ring, shared with the kernel.
    pub(crate) fn of_ring(fd: BorrowedFd<'_>, len: usize, offset: i64) -> io::Result<Self> {
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        Self::new(len, flags, fd.as_raw_fd(), offset)
    }

    pub(crate) fn addr(&self) -> u64 {
        self.addr as u64
    }

    /// In bytes, as asked for: the kernel rounds up to pages.
    pub(crate) fn size(&self) -> usize {
        self.len
    }

    /// The `u32` at `offset`, which the kernel may change at any time.
    pub(crate) fn atomic_u32(&self, offset: u32) -> &AtomicU32 {
        let offset = offset as usize;
        assert!(
            offset % 4 == 0 && offset + 4 <= self.len,
            "outside of the mapping"
        );
        // SAFETY: aligned and inside the mapping (asserted; the base is page
        // aligned), which is readable, writable and lives as long as `self`;
        // both sides access it only atomically.
        unsafe { AtomicU32::from_ptr((self.addr + offset) as *mut u32) }
    }

    /// Copies out the first `len` bytes, whoever else may write to them.
    pub(crate) fn read(&self, len: usize) -> Vec<u8> {
        let words = 0..len.div_ceil(4) as u32;
        let mut bytes: Vec<u8> = words
            .flat_map(|i| self.atomic_u32(4 * i).load(Ordering::Relaxed).to_ne_bytes())
            .collect();
        bytes.truncate(len);
        bytes
    }

    /// Copies `bytes` to the start, and zeroes up to the next multiple of four.
    pub(crate) fn write(&self, bytes: &[u8]) {
        for (i, chunk) in bytes.chunks(4).enumerate() {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            let place = self.atomic_u32(4 * i as u32);
            place.store(u32::from_ne_bytes(word), Ordering::Relaxed);
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `self` owns exactly this range, and the references that
        // `atomic_u32` lends have ended.
        unsafe { libc::munmap(self.addr as *mut c_void, self.len) };
    }
}

/// userfaultfd(2) for faults of the kernel too: privileged, or
/// vm.unprivileged_userfaultfd.
pub(crate) fn userfaultfd() -> io::Result<File> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: takes flags only.
    let fd = check(unsafe { libc::syscall(libc::SYS_userfaultfd, flags) })? as RawFd;
    // SAFETY: the call just returned it: open, and owned by nobody else.
    let uffd = unsafe { File::from_raw_fd(fd) };
    let mut api = UffdioApi {
        api: uapi::UFFD_API,
        ..UffdioApi::default()
    };
    // SAFETY: UFFDIO_API reads and writes one UffdioApi.
    check(unsafe { libc::ioctl(fd, uapi::UFFDIO_API as _, &mut api) }.into())?;
    Ok(uffd)
}

/// UFFDIO_REGISTER (missing pages) or UFFDIO_ZEROPAGE over a whole mapping.
pub(crate) fn uffd_range(uffd: &File, request: u64, page: &Mapping) -> io::Result<()> {
    let mode = match request {
        uapi::UFFDIO_REGISTER => uapi::UFFDIO_REGISTER_MODE_MISSING,
        uapi::UFFDIO_ZEROPAGE => 0,
        _ => panic!("not a range request: {request:#x}"),
    };
    let mut arg = UffdioRange {
        start: page.addr(),
        len: page.len as u64,
        mode,
        out: 0,
    };
    // SAFETY: both requests read and write four words. Zeroes are put only
    // where no page is yet, in a mapping to which no reference is lent.
    check(unsafe { libc::ioctl(uffd.as_raw_fd(), request as _, &mut arg) }.into()).map(drop)
}

/// poll(2) for input: false after `timeout`.
pub(crate) fn readable(fd: &File, timeout: Duration) -> io::Result<bool> {
    let mut pollfd = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one pollfd, ours for the call.
    Ok(check(unsafe { libc::poll(&mut pollfd, 1, timeout) }.into())? == 1)
}
