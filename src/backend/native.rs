//! The Native backend: an iterator of a patched kernel, attached to one ring. The
//! kernel takes the lock and calls the program, which writes all records at once and
//! has the kernel stop.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::backend::btf;
use crate::backend::files::Paths;
use crate::backend::maps::{self, Maps};
use crate::backend::program::{Forms, Programs};
use crate::backend::select::{check_bpf, NotOpened};
use crate::backend::task_file::{no_room, outcome};
use crate::choice::Reason;
use crate::error::{Contention, Error, Result};
use crate::locator::{Locator, NoCopy};
use crate::record::wire::{Mode, Status, WalkRequest};
use crate::record::Dumped;
use crate::ring::Via;
use crate::sys::bpf;

const DUMP: Forms = Forms {
    direct: &[c"dump_native"],
    compat: &[c"dump_native_compat"],
};
const STREAM: Forms = Forms {
    direct: &[c"stream_native"],
    compat: &[c"stream_native_compat"],
};

/// Reads a table of one ring, again and again.
pub(crate) struct Native<R> {
    address: Locator,
    link: OwnedFd,
    maps: Maps<R>,
    programs: Programs,
    /// For a table of files: loaded when a path is asked for.
    paths: Option<Box<Paths>>,
}

impl<R: Dumped> Native<R> {
    pub(crate) fn open(address: Locator) -> Result<Self, NotOpened> {
        require::<R>()?;
        Self::load(address, R::ROOM.first)
    }

    fn load(address: Locator, capacity: usize) -> Result<Self, NotOpened> {
        // Is there one? But none is kept while programs load: the ring could
        // not be closed meanwhile.
        drop(descriptor(&address)?);
        let programs = Programs::load(|| maps::open::<R>(capacity), DUMP)?;
        let ring = descriptor(&address)?;
        Ok(Self {
            link: link(&programs, ring.as_fd(), &address)?,
            maps: Maps::of(&programs.object, capacity)?,
            address,
            programs,
            paths: None,
        })
    }

    /// Another ring; what is loaded stays loaded.
    pub(crate) fn attach(&mut self, address: Locator) -> Result<(), NotOpened> {
        let ring = descriptor(&address)?;
        self.link = link(&self.programs, ring.as_fd(), &address)?;
        self.address = address;
        self.paths = None;
        Ok(())
    }

    pub(crate) fn address(&self) -> &Locator {
        &self.address
    }

    /// What tells paths of the files of this ring.
    pub(crate) fn paths(&mut self) -> Result<&mut Paths, NotOpened> {
        Ok(match &mut self.paths {
            Some(paths) => paths,
            none => none.insert(Box::new(Paths::open(&self.address)?)),
        })
    }

    /// Reads the table once, under its lock: its size, or what was in the way.
    pub(crate) fn read(&mut self, which: u64) -> Result<Result<usize, Contention>> {
        loop {
            self.maps.ask(WalkRequest {
                mode: Mode::Locked as u32,
                ..self.address.request(which)
            })?;
            let maps = &self.maps;
            let done = || Ok(maps.answer()?.status() != Some(Status::NotFound));
            if let Err(why) = run_session(self.link.as_fd(), &self.address, done)? {
                return Ok(Err(why));
            }
            let reply = self.maps.answer()?;
            match maps::room_for::<R>(reply.nr_slots as usize) {
                Some(capacity) if reply.status() == Some(Status::TooMany) => {
                    *self = self.with_room(capacity)?;
                }
                _ if reply.status() == Some(Status::NotFound) => {
                    return Err(Error::malformed(
                        "a native iterator",
                        "it ended without a call of its program",
                    ))
                }
                _ => return outcome::<R>(&self.address, which, &reply),
            }
        }
    }

    /// The same with more room, if what is there now is the same.
    fn with_room(&self, capacity: usize) -> Result<Self> {
        let larger =
            Self::load(self.address.clone(), capacity).map_err(|e| no_room(capacity, e))?;
        let facts = |link: &OwnedFd| {
            let facts = bpf::link_facts(link.as_fd()).map_err(|e| Error::os("ask a link", e))?;
            Ok::<_, Error>(facts.map(|facts| (facts.inode, facts.ep_id)))
        };
        match facts(&larger.link)? == facts(&self.link)? {
            true => Ok(larger),
            false => Err(self.address.gone()),
        }
    }

    pub(crate) fn records(&self, nr: usize) -> Result<&[R]> {
        self.maps.records(nr)
    }
}

/// One session: to the end of its slots, or until its program, which has what it came
/// for, has had the kernel stop.
pub(crate) fn run_session(
    link: BorrowedFd<'_>,
    address: &Locator,
    done: impl Fn() -> Result<bool>,
) -> Result<Result<(), Contention>> {
    let failed = |errno| match errno {
        Errno::NXIO => address.gone(),
        e => Error::os("read of a native iterator", e),
    };
    let session = new_session(link).map_err(failed)?;
    let mut buf = [0u8; 64];
    loop {
        match rustix::io::read(&session, &mut buf) {
            Ok(0) => return Ok(Ok(())),
            Ok(n) => {
                return Err(Error::malformed(
                    "a native iterator",
                    format!("{n} bytes of output where there is none"),
                ))
            }
            Err(Errno::INTR) => {}
            // The program has returned 1; or there were a million slots, and it goes on
            // where it was (bpf_seq_read, kernel/bpf/bpf_iter.c).
            Err(Errno::AGAIN) if done()? => return Ok(Ok(())),
            Err(Errno::AGAIN) => {}
            Err(Errno::DEADLK) => return Ok(Err(Contention::LockHeldUnseen)),
            Err(e) => return Err(failed(e)),
        }
    }
}

/// What the native iterator of `R` takes, before anything is loaded.
fn require<R: Dumped>() -> Result<(), NotOpened> {
    check_bpf().map_err(NotOpened::Refused)?;
    let target = R::TARGET.to_str().unwrap_or("?");
    match btf::has_target(R::TARGET) {
        Ok(true) => Ok(()),
        Ok(false) => Err(NotOpened::Refused(Reason::MissingTarget(target))),
        Err(e) => Err(match e.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => {
                NotOpened::Failed(Error::os("read the kernel's BTF", e))
            }
            // Hidden, or none: another backend may do without it.
            _ => NotOpened::Refused(Reason::UnreadableBtf(e)),
        }),
    }
}

/// A link whose iterators give records as bytes.
pub(crate) fn stream<R: Dumped>(
    fd: BorrowedFd<'_>,
    refused: impl FnOnce(Errno) -> NotOpened,
) -> Result<OwnedFd, NotOpened> {
    require::<R>()?;
    let programs = Programs::load(|| maps::open::<R>(R::ROOM.first), STREAM)?;
    // Its page size is all that these programs ask of the request.
    Maps::<R>::of(&programs.object, R::ROOM.first)?.ask(WalkRequest::default())?;
    programs
        .object
        .program_fd(programs.names[0])
        .and_then(|program| bpf::link_fd(program, fd))
        .map_err(|e| refused(errno_of(&e)))
}

pub(crate) fn new_session(link: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    bpf::new_run(link).map_err(|e| errno_of(&e))
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// A link to the ring behind a descriptor, which it does not keep.
pub(crate) fn link(
    programs: &Programs,
    ring: BorrowedFd<'_>,
    address: &Locator,
) -> Result<OwnedFd, NotOpened> {
    programs
        .object
        .program_fd(programs.names[0])
        .and_then(|program| bpf::link_fd(program, ring))
        .map_err(|e| match errno_of(&e) {
            Errno::NXIO => NotOpened::Failed(address.gone()),
            errno => refusal(errno),
        })
}

/// What a kernel says that will not attach: something of the backend, or that
/// it was short of something.
pub(crate) fn refusal(errno: Errno) -> NotOpened {
    match errno {
        Errno::PERM | Errno::ACCESS => NotOpened::Refused(Reason::NotPermitted(errno.into())),
        Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::AGAIN => {
            NotOpened::Failed(Error::os("attach a native iterator", errno))
        }
        errno => NotOpened::Refused(Reason::LinkRefused(errno.into())),
    }
}

/// A descriptor to attach by; the link does not keep it.
pub(crate) fn descriptor(address: &Locator) -> Result<OwnedFd, NotOpened> {
    let has_other_ways = address
        .places
        .iter()
        .any(|place| !matches!(place.via, Via::Descriptor(_)));
    let why = match address.copy_descriptor() {
        Ok(copy) => return Ok(copy),
        // Short of descriptors: so would the other backends be.
        Err(NoCopy::Refused(Error::Os { operation, source }))
            if matches!(
                Errno::from_io_error(&source),
                Some(Errno::MFILE | Errno::NFILE)
            ) =>
        {
            return Err(NotOpened::Failed(Error::os(operation, source)));
        }
        Err(NoCopy::Refused(error)) => error.to_string(),
        Err(NoCopy::Gone) if !has_other_ways => return Err(NotOpened::Failed(address.gone())),
        Err(NoCopy::OutOfReach) => {
            "it is that of a thread with descriptors of its own, which takes Linux 6.9".into()
        }
        Err(NoCopy::Gone | NoCopy::None) => "its holders have none".into(),
    };
    Err(NotOpened::Refused(Reason::NoDescriptor(why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Auto goes on to the next backend after a refusal, not after a failure.
    #[test]
    fn other_patches_are_a_refusal_and_a_lack_of_memory_is_none() {
        for errno in [Errno::INVAL, Errno::TOOBIG] {
            let refused = refusal(errno);
            assert!(matches!(
                refused,
                NotOpened::Refused(Reason::LinkRefused(_))
            ));
        }
        for errno in [Errno::NOMEM, Errno::MFILE] {
            let failed = refusal(errno);
            assert!(matches!(failed, NotOpened::Failed(Error::Os { .. })));
        }
    }
}
