//! Loads a BPF object with the programs that this kernel takes.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::backend::select::NotOpened;
use crate::backend::Reason;
use crate::error::{Error, Result};
use crate::sys::bpf::{self, LoadError, Object};

/// A program, and its twin for kernels before 6.9.
#[derive(Clone, Copy)]
pub(crate) struct Twins {
    pub(crate) direct: &'static CStr,
    pub(crate) compat: &'static CStr,
}

/// Set once a kernel has refused the direct form: it will do so again.
static COMPAT: AtomicBool = AtomicBool::new(false);

/// An object with one program of it, loaded.
pub(crate) struct Program {
    pub(crate) object: Object,
    name: &'static CStr,
}

impl Program {
    /// Loads the direct form of a program; its compat form if the kernel
    /// refuses that, but not if it refuses the caller.
    pub(crate) fn load(
        prepare: impl Fn() -> io::Result<Object>,
        twins: Twins,
    ) -> Result<Self, NotOpened> {
        if !COMPAT.load(Ordering::Relaxed) {
            match Self::load_one(&prepare, twins.direct) {
                Ok(program) => return Ok(program),
                Err(error) if is_permission(&error.source) => return Err(refusal(twins, error)),
                Err(_) => {}
            }
        }
        let program = Self::load_one(&prepare, twins.compat).map_err(|e| refusal(twins, e))?;
        COMPAT.store(true, Ordering::Relaxed);
        Ok(program)
    }

    /// Loads a program that has no compat form.
    pub(crate) fn load_only(
        prepare: impl Fn() -> io::Result<Object>,
        name: &'static CStr,
    ) -> Result<Self, NotOpened> {
        let twins = Twins {
            direct: name,
            compat: name,
        };
        Self::load_one(&prepare, name).map_err(|e| refusal(twins, e))
    }

    fn load_one(
        prepare: &impl Fn() -> io::Result<Object>,
        name: &'static CStr,
    ) -> Result<Self, LoadError> {
        let mut object = prepare().map_err(|source| LoadError {
            source,
            log: String::new(),
        })?;
        object.load(&[name])?;
        Ok(Self { object, name })
    }

    /// True for the form that loads through untyped pointers by helper calls.
    pub(crate) fn is_compat(&self) -> bool {
        self.name.to_bytes().ends_with(b"_compat")
    }

    /// A link to the tasks of one process, or to all.
    pub(crate) fn link(&self, pid: Option<u32>) -> Result<OwnedFd> {
        self.object
            .program_fd(self.name)
            .and_then(|program| bpf::link_tasks(program, pid))
            .map_err(|e| Error::os("bpf_link_create on a task iterator", e))
    }

    /// A link to the tracepoint of the program; gone when it is dropped.
    pub(crate) fn link_tracepoint(&self) -> io::Result<OwnedFd> {
        self.object
            .program_fd(self.name)
            .and_then(bpf::link_tracepoint)
    }
}

fn is_permission(error: &io::Error) -> bool {
    // EACCES is what the verifier says of a program that it does not like.
    error.raw_os_error() == Some(libc::EPERM)
}

fn refusal(twins: Twins, error: LoadError) -> NotOpened {
    if is_permission(&error.source) {
        return NotOpened::Refused(Reason::NotPermitted(error.source));
    }
    // libbpf says ESRCH when the kernel's BTF lacks the attach target.
    if error.source.raw_os_error() == Some(libc::ESRCH) {
        return NotOpened::Refused(Reason::MissingTarget("task_file"));
    }
    NotOpened::Refused(Reason::Rejected {
        program: twins.compat.to_str().unwrap_or("?"),
        source: error.source,
        log: error.log,
    })
}

/// Runs an iterator to its end, once. The programs write to maps and print
/// nothing, so a read that gives bytes is an error.
pub(crate) fn run(link: &OwnedFd) -> Result<()> {
    let iterator = bpf::new_run(link.as_fd())
        .map_err(|e| Error::os("bpf_iter_create on a task iterator", e))?;
    let mut buf = [0u8; 64];
    loop {
        match rustix::io::read(&iterator, &mut buf) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                return Err(Error::malformed(
                    "a task iterator",
                    format!("{n} bytes of output where there is none"),
                ))
            }
            // EAGAIN: a million files were met without output; it goes on
            // where it was (bpf_seq_read, kernel/bpf/bpf_iter.c).
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(e) => return Err(Error::os("read of a task iterator", e)),
        }
    }
}
