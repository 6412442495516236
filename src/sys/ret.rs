//! The return values of libbpf.

use std::ffi::c_int;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// libbpf's convention: a negative errno, or 0 and more for success.
pub(super) fn check(ret: c_int) -> io::Result<c_int> {
    if ret < 0 {
        Err(io::Error::from_raw_os_error(-ret))
    } else {
        Ok(ret)
    }
}

pub(super) fn check_fd(ret: c_int) -> io::Result<OwnedFd> {
    let fd = check(ret)?;
    // SAFETY: a new descriptor that the call has just handed to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
