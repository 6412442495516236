//! Facts about /proc that all its readers share.

use std::fs;
use std::io;
use std::path::Path;

use crate::backend::select::NotOpened;
use crate::choice::Reason;
use crate::error::{Error, Permission};
use crate::kernel;
use crate::record::{Consistency, RegisteredBuf};

/// /proc has to show our own pid namespace.
pub(super) fn check() -> Result<(), NotOpened> {
    let own = std::process::id().to_string();
    match fs::read_link("/proc/self") {
        Ok(shown) if shown == Path::new(&own) => Ok(()),
        _ => Err(NotOpened::Refused(Reason::WrongProc)),
    }
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
