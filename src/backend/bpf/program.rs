//! Loads a BPF object with the programs that this kernel takes.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::backend::select::NotOpened;
use crate::choice::Reason;
use crate::error::{Error, Result};
use crate::sys::bpf::{self, LoadError, Loaded, Object};
use crate::sys::link;
use crate::tasks::Tasks;

/// Programs that are loaded together, and what stands for them on kernels
/// before 6.9.
#[derive(Clone, Copy)]
pub(crate) struct Forms {
    pub(crate) direct: &'static [&'static CStr],
    pub(crate) compat: &'static [&'static CStr],
}

/// Set once a kernel has refused the direct form: it will do so again.
pub(crate) static COMPAT: AtomicBool = AtomicBool::new(false);

/// Set once a kernel has refused programs that a system call runs: those are for
/// kernels from 6.10 on.
pub(crate) static NO_CALL: AtomicBool = AtomicBool::new(false);

/// Cleared once the kernel has refused a loader, and not what libbpf loads.
pub(crate) static FAST: AtomicBool = AtomicBool::new(true);

/// An object with some programs of it, loaded.
pub(crate) struct Programs {
    pub(crate) object: Loaded,
    pub(crate) names: &'static [&'static CStr],
}

impl Programs {
    /// Loads the direct forms; the compat forms if the kernel refuses these
    /// programs, but not if it refuses the caller, or lacks memory.
    pub(crate) fn load(
        prepare: impl Fn() -> io::Result<Object> + Sync,
        forms: Forms,
    ) -> Result<Self, NotOpened> {
        if !COMPAT.load(Ordering::Relaxed) {
            match Self::load_form(&prepare, forms.direct) {
                Ok(programs) => return Ok(programs),
                Err(error) if is_verdict(&error) => {}
                Err(error) => return Err(refusal(error)),
            }
        }
        let programs = Self::load_form(&prepare, forms.compat).map_err(refusal)?;
        COMPAT.store(true, Ordering::Relaxed);
        Ok(programs)
    }

    /// Loads the first of these programs, which a system call runs, that the kernel
    /// takes; `None` if it refuses all.
    pub(crate) fn load_call(
        prepare: impl Fn() -> io::Result<Object> + Sync,
        forms: &[&'static [&'static CStr]],
    ) -> Result<Option<Self>, NotOpened> {
        if NO_CALL.load(Ordering::Relaxed) {
            return Ok(None);
        }
        for names in forms {
            match Self::load_form(&prepare, names) {
                Ok(programs) => return Ok(Some(programs)),
                Err(error) if is_verdict(&error) => {}
                Err(error) => return Err(refusal(error)),
            }
        }
        NO_CALL.store(true, Ordering::Relaxed);
        Ok(None)
    }

    /// Loads programs that have no other form.
    pub(crate) fn load_only(
        prepare: impl Fn() -> io::Result<Object> + Sync,
        names: &'static [&'static CStr],
    ) -> Result<Self, NotOpened> {
        Self::load_form(&prepare, names).map_err(refusal)
    }

    /// In a thread that gets no signals: completions of a ring signal the thread that
    /// has submitted the requests (TWA_SIGNAL), and then the verifier gives up. libbpf
    /// tries again a few times, takes its own small programs that fail so for features
    /// that the kernel lacks, and a long log that was cut off for ENOSPC.
    fn load_form(
        prepare: &(impl Fn() -> io::Result<Object> + Sync),
        names: &'static [&'static CStr],
    ) -> Result<Self, LoadError> {
        let load = || Self::load_here(prepare, names);
        thread::scope(
            |scope| match thread::Builder::new().spawn_scoped(scope, load) {
                Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
                // No room for one more: here, then.
                Err(_) => load(),
            },
        )
    }

    fn load_here(
        prepare: &impl Fn() -> io::Result<Object>,
        names: &'static [&'static CStr],
    ) -> Result<Self, LoadError> {
        let open = || {
            prepare().map_err(|source| LoadError {
                source,
                log: String::new(),
            })
        };
        let mut refused = false;
        if FAST.load(Ordering::Relaxed) {
            match open()?.load_fast(names) {
                Ok(object) => return Ok(Self { object, names }),
                Err(error) => refused = !is_short(&error),
            }
        }
        let object = open()?.load(names)?;
        if refused {
            FAST.store(false, Ordering::Relaxed);
        }
        Ok(Self { object, names })
    }

    /// Runs the first one by a system call.
    pub(crate) fn call(&self) -> io::Result<()> {
        bpf::run(self.object.program_fd(self.names[0])?)
    }

    /// A link of one of them to tasks.
    pub(crate) fn link(&self, name: &CStr, tasks: Tasks) -> Result<OwnedFd> {
        self.object
            .program_fd(name)
            .and_then(|program| link::link_tasks(program, tasks))
            .map_err(|e| Error::os("bpf_link_create on a task iterator", e))
    }
}

/// EPERM, and EACCES where it is not the verifier that says so.
fn is_permission(error: &LoadError) -> bool {
    match error.source.raw_os_error() {
        Some(libc::EPERM) => true,
        Some(libc::EACCES) => error.log.trim().is_empty(),
        _ => false,
    }
}

/// True for the errors of a verifier that does not accept a program.
fn is_verdict(error: &LoadError) -> bool {
    const ENOTSUPP: i32 = 524; // include/linux/errno.h, not for user space
    let said = [
        libc::EINVAL,
        libc::EACCES,
        libc::E2BIG,
        libc::ENOSPC,
        libc::EOPNOTSUPP,
        ENOTSUPP,
    ];
    let errno = error.source.raw_os_error();
    !is_permission(error) && errno.is_some_and(|errno| said.contains(&errno))
}

/// The kernel did not look at the programs, or not to their end, and may do so next
/// time.
fn is_short(error: &io::Error) -> bool {
    let short = [
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOMEM,
        libc::EINTR,
        libc::EAGAIN,
    ];
    error
        .raw_os_error()
        .is_some_and(|errno| short.contains(&errno))
}

/// Whether this process is in another user namespace than the initial one, which has all
/// numbers of users, each under its own.
fn in_user_namespace() -> bool {
    const ALL: [&str; 3] = ["0", "0", "4294967295"];
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.is_empty() && !map.split_whitespace().eq(ALL)
}

/// Whether kernel lockdown hides the kernel's memory; a kernel without lockdown, and a
/// /sys without securityfs, do not say so.
fn is_locked_down() -> bool {
    let modes = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    modes.contains("[confidentiality]")
}

fn refusal(error: LoadError) -> NotOpened {
    if is_locked_down() {
        return NotOpened::Refused(Reason::Lockdown);
    }
    if is_permission(&error) {
        let reason = match in_user_namespace() {
            true => Reason::UserNamespace(error.source),
            false => Reason::NotPermitted(error.source),
        };
        return NotOpened::Refused(reason);
    }
    if is_short(&error.source) {
        return NotOpened::Failed(Error::os("load BPF programs", error.source));
    }
    // libbpf says ESRCH when the kernel's BTF lacks the attach target. (The
    // native ones are asked for before anything is loaded.)
    if error.source.raw_os_error() == Some(libc::ESRCH) {
        return NotOpened::Refused(Reason::MissingTarget("task_file"));
    }
    NotOpened::Refused(Reason::Rejected {
        source: error.source,
        log: error.log,
    })
}
