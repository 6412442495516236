//! The threads of a process, and the descriptors of one thread, as /proc shows them. A
//! leader that has ended has no descriptors, and no pidfd gives those of its threads.

use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;

use crate::error::{Error, Permission, Result};

/// The threads of a process that have not ended, in ascending order; a leader that has
/// ended is among them until all have.
///
/// # Errors
///
/// [`Error::NoSuchProcess`], also for the number of a thread that leads no process.
pub(crate) fn of(pid: u32) -> Result<Vec<u32>> {
    // /proc/TID is that of its process for any thread.
    if process_of(pid)? != pid {
        return Err(Error::NoSuchProcess { pid });
    }
    let path = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&path).map_err(|e| failed(pid, &path, e))?;
    let mut tids = Vec::new();
    for entry in entries {
        let name = entry.map_err(|e| failed(pid, &path, e))?.file_name();
        tids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    tids.sort_unstable();
    Ok(tids)
}

/// The process that a thread is of.
pub(crate) fn process_of(tid: u32) -> Result<u32> {
    let path = format!("/proc/{tid}/status");
    let status = fs::read_to_string(&path).map_err(|e| failed(tid, &path, e))?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    line.and_then(|pid| pid.trim().parse().ok())
        .ok_or_else(|| Error::malformed(path, "no Tgid"))
}

/// A descriptor of a thread.
#[derive(Debug)]
pub(crate) struct Link {
    /// As readlink(2) shows the file.
    pub(crate) what: String,
    pub(crate) inode: u64,
}

/// The file that is a descriptor of a thread.
///
/// # Errors
///
/// [`Error::NoSuchDescriptor`], also if the thread has ended.
pub(crate) fn link(pid: u32, tid: u32, fd: RawFd) -> Result<Link> {
    let path = format!("/proc/{pid}/task/{tid}/fd/{fd}");
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => Error::NoSuchDescriptor { pid, fd },
        _ => failed(pid, &path, e),
    };
    let what = fs::read_link(&path).map_err(failed)?;
    Ok(Link {
        what: what.display().to_string(),
        inode: fs::metadata(&path).map_err(failed)?.ino(),
    })
}

/// The first thread of a process that has such a descriptor, and the file.
///
/// # Errors
///
/// [`Error::NoSuchProcess`], [`Error::NoSuchDescriptor`].
pub(crate) fn with_descriptor(pid: u32, fd: RawFd) -> Result<(u32, Link)> {
    // The leader is the first, unless numbers have begun anew.
    let mut tids = of(pid)?;
    tids.sort_by_key(|&tid| tid != pid);
    let mut last = Error::NoSuchDescriptor { pid, fd };
    for tid in tids {
        match link(pid, tid, fd) {
            Ok(link) => return Ok((tid, link)),
            Err(Error::NoSuchDescriptor { .. }) => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn failed(pid: u32, path: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::NoSuchProcess { pid },
        io::ErrorKind::PermissionDenied => Error::NotPermitted {
            operation: format!("read {path}"),
            needs: Permission::ReadProc,
            source: error,
        },
        _ if error.raw_os_error() == Some(libc::ESRCH) => Error::NoSuchProcess { pid },
        _ => Error::os(format!("read {path}"), error),
    }
}
