//! Facts about /proc that all its readers share.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::str::FromStr;

use rustix::fs::{openat, readlinkat_raw, statat, AtFlags, Mode, OFlags, RawDir, CWD};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::backend::select::NotOpened;
use crate::choice::Reason;
use crate::error::{Error, Permission, Result};
use crate::kernel;
use crate::pidfd;
use crate::record::{Consistency, RegisteredBuf};
use crate::ring::{Unseen, UnseenReason};
use crate::tasks::{process_of, tables_in_own_proc, Tasks};

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

/// Looks at these tasks, a process after the other, with a thread for each of its tables of
/// descriptors: the processes that could not be looked at in full, of which `look` says
/// false.
///
/// # Errors
///
/// That of the look at a process, if that was asked for alone.
pub(super) fn each_process(
    tasks: Tasks,
    mut look: impl FnMut(&OwnedFd, u32, &[u32]) -> Result<bool>,
) -> Result<Vec<Unseen>> {
    let fail = |e| Error::os("read /proc (is it mounted?)", e);
    let proc = open_in(CWD, "/proc", OFlags::DIRECTORY).map_err(fail)?;
    let (pids, alone) = match tasks {
        Tasks::All => (numbers_in(&proc).map_err(fail)?, None),
        Tasks::Process(pid) => (vec![pid], None),
        Tasks::Thread(tid) => (vec![process_of(tid)?], Some(vec![tid])),
    };
    let mut unseen = Vec::new();
    let mut not_permitted = |pid| {
        unseen.push(Unseen {
            pid,
            why: UnseenReason::NotPermitted,
        });
    };
    for pid in pids {
        let tables = match &alone {
            Some(thread) => Ok(thread.clone()),
            None => tables_in_own_proc(pid),
        };
        match tables.and_then(|tables| look(&proc, pid, &tables)) {
            Ok(true) | Err(Error::NoSuchProcess { .. }) => {}
            Ok(false) => not_permitted(pid),
            Err(Error::NotPermitted { .. }) if tasks == Tasks::All => not_permitted(pid),
            Err(e) => return Err(e),
        }
    }
    if tasks == Tasks::All && hides_processes(&proc) {
        not_permitted(1);
    }
    Ok(unseen)
}

pub(super) fn open_in(at: impl AsFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | flags;
    openat(at, path, flags, Mode::empty())
}

/// The names in a folder that are numbers: processes, or threads.
pub(super) fn numbers_in(folder: &OwnedFd) -> Result<Vec<u32>, Errno> {
    let mut pids = Vec::new();
    let mut room = [MaybeUninit::uninit(); 1 << 14];
    let mut entries = RawDir::new(folder, &mut room);
    while let Some(entry) = entries.next() {
        pids.extend(number::<u32>(entry?.file_name()));
    }
    pids.sort_unstable();
    Ok(pids)
}

/// A name in /proc that is one.
pub(super) fn number<N: FromStr>(name: &CStr) -> Option<N> {
    name.to_str().ok()?.parse().ok()
}

/// Looks at each table of descriptors of a process, by one of its threads: false if one of
/// them could not be looked at, but others.
///
/// # Errors
///
/// [`Error::NotPermitted`] if none could, [`Error::NoSuchProcess`] if it is gone.
pub(super) fn each_table(
    pid: u32,
    tables: &[u32],
    mut look: impl FnMut(u32) -> io::Result<()>,
) -> Result<bool> {
    let (mut seen, mut refused) = (false, None);
    for &tid in tables {
        match look(tid) {
            Ok(()) => seen = true,
            // A thread that has ended has no descriptors any more.
            Err(e) if is_gone(&e) => {}
            // Nobody but root may look at a leader that has ended, which has none either.
            Err(e) if is_refused(&e) && tid == pid && has_ended(pid) => seen = true,
            Err(e) if is_refused(&e) => refused = Some(e),
            Err(e) => return Err(Error::os(format!("look at process {pid} in /proc"), e)),
        }
    }
    match refused {
        None if seen => Ok(true),
        None => Err(Error::NoSuchProcess { pid }),
        Some(_) if seen => Ok(false),
        Some(source) => Err(Error::NotPermitted {
            operation: format!("look at the descriptors of process {pid}"),
            needs: Permission::ReadProc,
            source,
        }),
    }
}

fn is_refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Whether a leader is what is left of it until its threads have ended, too.
fn has_ended(pid: u32) -> bool {
    // Its state comes after its name, which may have any bytes.
    let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let end = memchr::memrchr(b')', &stat);
    end.is_some_and(|end| stat[end..].starts_with(b") Z") || stat[end..].starts_with(b") X"))
}

/// Whether /proc does not show processes of others (hidepid, proc(5)): then the first one
/// of the pid namespace is missing.
fn hides_processes(proc: impl AsFd) -> bool {
    matches!(statat(proc, "1", AtFlags::empty()), Err(Errno::NOENT)) && pidfd::exists(1)
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
