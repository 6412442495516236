//! Processes and their threads: which are meant, and what /proc says of them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use crate::error::{Error, Result};
use crate::sys::kcmp::share_descriptors;

/// The tasks that are to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tasks {
    All,
    /// A process, by its number.
    Process(u32),
    /// A thread by itself.
    Thread(u32),
}

/// The process of a thread. (The leader is a thread, too.)
pub(crate) fn process_of(tid: u32) -> Result<u32> {
    let path = format!("/proc/{tid}/status");
    let text = fs::read_to_string(&path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::NoSuchProcess { pid: tid },
        _ => Error::os(format!("read {path} (is /proc mounted?)"), e),
    })?;
    let process = text.lines().find_map(|line| line.strip_prefix("Tgid:"));
    process
        .and_then(|number| number.trim().parse().ok())
        .ok_or_else(|| Error::malformed(path, "no number after `Tgid:`"))
}

/// One thread for each table of descriptors that a process has: first the leader, even
/// if it has ended, which leaves it none.
///
/// # Errors
///
/// EACCES or EPERM without ptrace rights, if the process has threads.
pub(crate) fn descriptor_tables(pid: u32) -> io::Result<Vec<u32>> {
    let mut tables = vec![pid];
    let task = format!("/proc/{pid}/task");
    // One for each thread (proc_task_getattr(), fs/proc/base.c).
    if fs::metadata(&task)?.nlink() <= 3 {
        return Ok(tables);
    }
    for entry in fs::read_dir(&task)? {
        let name = entry?.file_name();
        let Some(tid) = name.to_str().and_then(|tid| tid.parse().ok()) else {
            continue;
        };
        if tid != pid && has_another(tid, &tables)? {
            tables.push(tid);
        }
    }
    Ok(tables)
}

/// Whether the table of a thread is none of these. A kernel that cannot say (without
/// `CONFIG_KCMP`) may have it so.
fn has_another(tid: u32, tables: &[u32]) -> io::Result<bool> {
    for &known in tables {
        match share_descriptors(tid, known) {
            Ok(true) => return Ok(false),
            Ok(false) => {}
            // It has ended.
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Ok(false),
            Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_of_its_process() {
        let own = std::process::id();
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        assert_eq!(process_of(tid.unsigned_abs()).unwrap(), own);
        assert_eq!(process_of(own).unwrap(), own);
        let none = process_of(u32::MAX).unwrap_err();
        assert!(
            matches!(none, Error::NoSuchProcess { pid: u32::MAX }),
            "{none}"
        );
    }

    #[test]
    fn threads_share_a_table_until_one_unshares_it() {
        let own = std::process::id();
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tell.send(rustix::thread::gettid()).unwrap();
            let _ = ended.recv();
        });
        let tid = told.recv().unwrap().as_raw_nonzero().get().unsigned_abs();
        let tables = descriptor_tables(own).unwrap();
        assert_eq!(tables[0], own);
        assert!(!tables.contains(&tid), "{tables:?}");
        drop(end);
        thread.join().unwrap();
    }
}
