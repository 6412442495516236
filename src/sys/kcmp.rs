//! Whether two tasks share something, by kcmp(2).

use std::ffi::c_long;
use std::io;

/// `KCMP_FILES`, include/uapi/linux/kcmp.h
const FILES: c_long = 2;

/// Whether two tasks use one table of descriptors.
///
/// # Errors
///
/// EPERM without ptrace rights over both (`PTRACE_MODE_READ_REALCREDS`), ESRCH if one
/// of them is gone, ENOSYS for a kernel without `CONFIG_KCMP`.
pub(crate) fn share_descriptors(a: u32, b: u32) -> io::Result<bool> {
    let (a, b) = (a as c_long, b as c_long);
    // SAFETY: the call takes five numbers and touches no memory of this process.
    let ret = unsafe { libc::syscall(libc::SYS_kcmp, a, b, FILES, 0 as c_long, 0 as c_long) };
    match ret {
        0 => Ok(true),
        ret if ret > 0 => Ok(false),
        _ => Err(io::Error::last_os_error()),
    }
}
