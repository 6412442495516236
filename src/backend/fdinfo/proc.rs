//! Facts about /proc that all its readers share.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{readlinkat_raw, CWD};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::backend::select::NotOpened;
use crate::choice::Reason;
use crate::error::{Error, Permission};
use crate::kernel;
use crate::record::{Consistency, RegisteredBuf};

/// /proc has to show our own pid namespace.
pub(super) fn check() -> Result<(), NotOpened> {
    let own = std::process::id().to_string();
    match links_to(CWD, "/proc/self", &own) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(NotOpened::Refused(Reason::WrongProc)),
    }
}

/// Whether a symbolic link is one to this name.
pub(super) fn links_to(at: impl AsFd, link: impl Arg, name: &str) -> Result<bool, Errno> {
    // A longer name is cut, and then another one.
    let mut shown = [0; 64];
    let len = readlinkat_raw(at, link, &mut shown[..])?;
    Ok(&shown[..len] == name.as_bytes())
}

/// The error for a file of a process that could not be read.
pub(super) fn failed(path: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Error::NotPermitted {
            operation: format!("read {path}"),
            needs: Permission::ReadProc,
            source: error,
        },
        _ => Error::os(format!("read {path}"), error),
    }
}

/// The process or the descriptor has gone, before or after it was opened.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// A list is printed under the lock. But up to 6.12 its title is not, and a
/// size of 0 may mean that the table is just being taken down.
pub(super) fn list_consistency(bufs: &[RegisteredBuf]) -> Consistency {
    match bufs.is_empty() && !prints_under_lock() {
        true => Consistency::Raw,
        false => Consistency::Locked,
    }
}

/// True if this kernel prints nothing of a ring whose lock is taken: seen from
/// 6.18 on.
pub(super) fn prints_under_lock() -> bool {
    kernel::at_least(6, 18)
}
