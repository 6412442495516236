//! Processes and their threads: which are meant, and what /proc says of them.

use std::cmp::Ordering;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;

use crate::error::{Error, Permission, Result};
use crate::pidfd;
use crate::sys::kcmp::descriptors;

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
    check_proc()?;
    let path = format!("/proc/{tid}/status");
    let status = fs::read_to_string(&path).map_err(|e| failed(tid, &path, e))?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    line.and_then(|pid| pid.trim().parse().ok())
        .ok_or_else(|| Error::malformed(path, "no number after `Tgid:`"))
}

/// One thread for each table of descriptors that a process has: first the leader, even
/// if it has ended, which leaves it none. Where kcmp(2) does not say which threads share
/// one (EPERM without ptrace rights, ENOSYS without `CONFIG_KCMP`), all of them.
pub(crate) fn descriptor_tables(pid: u32) -> Result<Vec<u32>> {
    check_proc()?;
    tables_in_own_proc(pid)
}

/// The same, if /proc is known to show our pid namespace.
pub(crate) fn tables_in_own_proc(pid: u32) -> Result<Vec<u32>> {
    let task = format!("/proc/{pid}/task");
    let refused = |e| failed(pid, &task, e);
    // One for each thread (proc_task_getattr(), fs/proc/base.c).
    if fs::metadata(&task).map_err(refused)?.nlink() <= 3 {
        return Ok(vec![pid]);
    }
    let mut tables = Tables::default();
    tables.add(pid);
    for entry in fs::read_dir(&task).map_err(refused)? {
        let name = entry.map_err(refused)?.file_name();
        let tid = name.to_str().and_then(|tid| tid.parse().ok());
        if let Some(tid) = tid.filter(|tid| *tid != pid) {
            tables.add(tid);
        }
    }
    Ok(tables.threads)
}

/// Threads that do not share their descriptors.
#[derive(Default)]
struct Tables {
    threads: Vec<u32>,
    /// Those that could be compared, in the kernel's order of their tables.
    ordered: Vec<u32>,
}

impl Tables {
    fn add(&mut self, tid: u32) {
        let (mut from, mut to) = (0, self.ordered.len());
        while from < to {
            let middle = from + (to - from) / 2;
            match descriptors(self.ordered[middle], tid) {
                Ok(Ordering::Equal) => return,
                Ok(Ordering::Less) => from = middle + 1,
                Ok(Ordering::Greater) => to = middle,
                Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {
                    if !is_there(tid) {
                        return;
                    }
                    // It is the other one that has ended.
                    self.ordered.remove(middle);
                    to -= 1;
                }
                Err(_) => break,
            }
        }
        if from == to {
            self.ordered.insert(from, tid);
        }
        self.threads.push(tid);
    }
}

fn is_there(tid: u32) -> bool {
    descriptors(tid, tid).is_ok()
}

/// The numbers in /proc have to be those of our pid namespace.
fn check_proc() -> Result<()> {
    let own = fs::read_link("/proc/self");
    match own.is_ok_and(|own| own.as_os_str() == std::process::id().to_string().as_str()) {
        true => Ok(()),
        false => Err(Error::os(
            "look up a task: /proc is not mounted or shows another pid namespace \
             (mount -t proc proc /proc)",
            io::ErrorKind::NotFound,
        )),
    }
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

/// The first thread of a process that has such a descriptor, and the file; one that has a
/// descriptor of this kind there, before others.
///
/// # Errors
///
/// [`Error::NoSuchProcess`], [`Error::NoSuchDescriptor`].
pub(crate) fn with_descriptor(pid: u32, fd: RawFd, kind: &str) -> Result<(u32, Link)> {
    check_proc()?;
    let mut found = None;
    let mut last = Error::NoSuchDescriptor { pid, fd };
    match link(pid, pid, fd) {
        Ok(link) if link.what == kind => return Ok((pid, link)),
        Ok(link) => found = Some((pid, link)),
        Err(Error::NoSuchDescriptor { .. }) => {}
        Err(error) => last = error,
    }
    for tid in descriptor_tables(pid)? {
        match link(pid, tid, fd) {
            Ok(link) if link.what == kind => return Ok((tid, link)),
            Ok(link) => drop(found.get_or_insert((tid, link))),
            Err(Error::NoSuchDescriptor { .. }) => {}
            Err(error) => last = error,
        }
    }
    found.ok_or(last)
}

fn failed(pid: u32, path: &str, error: io::Error) -> Error {
    match error.kind() {
        // Hidden from us (hidepid, proc(5)), if it is there all the same.
        io::ErrorKind::NotFound if pidfd::exists(pid) => Error::NotPermitted {
            operation: format!("see process {pid} in /proc, which hides it (hidepid)"),
            needs: Permission::ReadProc,
            source: error,
        },
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
