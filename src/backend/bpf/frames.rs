//! Page frame numbers: a kernel shows pointers to `struct page`, and not where
//! their array begins.
//!
//! The number of one of our own pages is known by /proc/self/pagemap, and the
//! pointer by a program. A caller that pagemap shows no numbers learns none here.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use rustix::fs::{fstat, ftruncate, memfd_create, MemfdFlags};
use rustix::io::Errno;

use crate::backend::bpf::iterator;
use crate::backend::bpf::program::Programs;
use crate::backend::bpf::wire::{FrameReply, FrameRequest};
use crate::backend::select::NotOpened;
use crate::error::{Error, Result};
use crate::sys::bpf::{self, Object};
use crate::sys::shared::Shared;
use crate::tasks::Tasks;

/// The address of `struct page` of page frame 0, which is the same until the
/// next boot; `None` for a caller that pagemap shows no numbers, and where the
/// array was not found or there is none.
pub(crate) fn page_base() -> Option<u64> {
    static BASE: OnceLock<u64> = OnceLock::new();
    let own = 0u8;
    frame_at(&raw const own as usize).ok().flatten()?;
    match BASE.get() {
        Some(base) => Some(*base),
        None => {
            let base = measure().ok().flatten()?;
            Some(*BASE.get_or_init(|| base))
        }
    }
}

/// By two pages, which have to agree.
fn measure() -> Result<Option<u64>> {
    let (one, other) = (Page::new()?, Page::new()?);
    let prober = Prober::open()?;
    let base = prober.base_by(&one)?;
    Ok(base.filter(|_| prober.base_by(&other).ok().flatten() == base))
}

/// The frame of the page at this address of ours; `None` if the kernel does
/// not say, or the page is not there.
fn frame_at(address: usize) -> io::Result<Option<u64>> {
    // Documentation/admin-guide/mm/pagemap.rst
    const PRESENT: u64 = 1 << 63;
    const FRAME: u64 = (1 << 55) - 1;
    let mut entry = [0u8; 8];
    let at = address / rustix::param::page_size() * entry.len();
    File::open("/proc/self/pagemap")?.read_exact_at(&mut entry, at as u64)?;
    let entry = u64::from_ne_bytes(entry);
    let frame = entry & FRAME;
    Ok((entry & PRESENT != 0 && frame != 0).then_some(frame))
}

/// A file of one page, which is mapped.
struct Page {
    file: OwnedFd,
    memory: Shared<u64>,
}

impl Page {
    fn new() -> Result<Self> {
        let fail = |e: io::Error| Error::os("make a file of one page", e);
        let name = c"uring-bpf-iter";
        let file = match memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL) {
            // Before Linux 6.3.
            Err(Errno::INVAL) => memfd_create(name, MemfdFlags::CLOEXEC),
            made => made,
        }
        .map_err(|e| fail(e.into()))?;
        let size = rustix::param::page_size() as u64;
        ftruncate(&file, size).map_err(|e| fail(e.into()))?;
        let mut memory = Shared::map(file.as_fd(), 1).map_err(fail)?;
        memory.write(1).map_err(fail)?;
        Ok(Self { file, memory })
    }

    fn frame(&self) -> Option<u64> {
        let address = self.memory.get(1)?.as_ptr() as usize;
        frame_at(address).ok().flatten()
    }
}

/// The program that looks at a page.
struct Prober {
    programs: Programs,
    link: OwnedFd,
}

impl Prober {
    fn open() -> Result<Self> {
        let programs =
            Programs::load_only(|| Object::open(bpf::frames_object()), &[c"look_at_page"])
                .map_err(|e| match e {
                    NotOpened::Failed(error) => error,
                    NotOpened::Refused(reason) => {
                        Error::os("load a BPF program", io::Error::other(reason.to_string()))
                    }
                })?;
        let link = programs.link(programs.names[0], Tasks::Process(std::process::id()))?;
        Ok(Self { programs, link })
    }

    /// Where the array begins, judged by this page.
    fn base_by(&self, page: &Page) -> Result<Option<u64>> {
        // The kernel may move or swap out a page between two looks.
        for _ in 0..10 {
            let before = page.frame();
            let reply = self.look(&page.file)?;
            let bytes = u64::from(reply.page_bytes);
            match before {
                Some(frame) if reply.page != 0 && page.frame() == before => {
                    let base = reply.page.wrapping_sub(frame.wrapping_mul(bytes));
                    return Ok((reply.linear != 0).then_some(base));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn look(&self, file: &OwnedFd) -> Result<FrameReply> {
        let fail = |e| Error::os("mmap of a BPF map", e);
        let fd = |name| self.programs.object.map_fd(name).map_err(fail);
        let mut request = Shared::map(fd(c".bss.request")?, 1).map_err(fail)?;
        let mut reply = Shared::map(fd(c".bss.reply")?, 1).map_err(fail)?;
        let stat = fstat(file).map_err(|e| Error::os("fstat of a memfd", e))?;
        let wanted = FrameRequest {
            inode: stat.st_ino,
            fd: file.as_raw_fd(),
            pad: 0,
        };
        request
            .write(wanted)
            .and_then(|()| reply.write(FrameReply::default()))
            .map_err(fail)?;
        iterator::walk_tasks(self.link.as_fd())?;
        reply.read().map_err(fail)
    }
}
