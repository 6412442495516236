//! The memory of registered buffers: where each buffer lies, and what the
//! kernel should say about it. Registers nothing.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use crate::sys::{page_size, Mapping};
use crate::uapi::IoVec;

const NR_HUGE: &str = "/proc/sys/vm/nr_hugepages";

/// One registered buffer to be: the kit finds memory for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BufSpec {
    /// Length in bytes.
    pub len: usize,
    /// Where it starts inside its first page (of the kind that `huge` says).
    pub offset_in_page: usize,
    /// Lies in huge pages of the default size (2 MiB on x86-64).
    pub huge: bool,
    /// The resource tag; 0 is none. The kernel posts a CQE with a tag that is
    /// not 0 when the buffer leaves its slot.
    pub tag: u64,
}

impl BufSpec {
    /// `len` bytes from the start of a page, without a tag.
    pub const fn new(len: usize) -> Self {
        Self {
            len,
            offset_in_page: 0,
            huge: false,
            tag: 0,
        }
    }

    /// The same, starting `offset_in_page` bytes into its first page.
    #[must_use]
    pub const fn at(self, offset_in_page: usize) -> Self {
        Self {
            offset_in_page,
            ..self
        }
    }

    /// The same in huge pages.
    #[must_use]
    pub const fn in_huge_pages(self) -> Self {
        Self { huge: true, ..self }
    }

    /// The same with a tag.
    #[must_use]
    pub const fn tagged(self, tag: u64) -> Self {
        Self { tag, ..self }
    }
}

/// A registered buffer as the kernel must show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Registered {
    /// User address of the first byte.
    pub addr: u64,
    /// Length in bytes.
    pub len: u64,
    /// The resource tag, 0 if none.
    pub tag: u64,
}

/// Memory for a run of slots: one mapping for all buffers in base pages, one
/// for all in huge pages, so that 16,384 buffers cost two mmap calls.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) slots: Vec<Option<Registered>>,
    pub(crate) maps: Vec<Mapping>,
}

impl Placed {
    pub(crate) fn new(specs: &[Option<BufSpec>]) -> io::Result<Self> {
        let mut slots = vec![None; specs.len()];
        let mut maps = Vec::new();
        for huge in [false, true] {
            let kind: Vec<(usize, BufSpec)> = (specs.iter().enumerate())
                .filter_map(|(i, spec)| spec.filter(|s| s.huge == huge).map(|s| (i, s)))
                .collect();
            if kind.is_empty() {
                continue;
            }
            let page = if huge { huge_page_size()? } else { page_size() };
            let mut offsets = Vec::with_capacity(kind.len());
            let mut total = 0;
            for (_, spec) in &kind {
                if spec.offset_in_page >= page {
                    return Err(invalid("offset_in_page is not inside a page"));
                }
                offsets.push(total + spec.offset_in_page);
                // At least one page: neighbours never share one.
                total += (spec.offset_in_page + spec.len)
                    .max(1)
                    .next_multiple_of(page);
            }
            let map = if huge {
                map_huge(total, page)?
            } else {
                Mapping::anonymous(total)?
            };
            for ((slot, spec), offset) in kind.into_iter().zip(offsets) {
                let addr = map.addr() + offset as u64;
                slots[slot] = Some(Registered {
                    addr,
                    len: spec.len as u64,
                    tag: spec.tag,
                });
            }
            maps.push(map);
        }
        Ok(Self { slots, maps })
    }

    pub(crate) fn iovecs(&self) -> Vec<IoVec> {
        iovecs(&self.slots)
    }

    pub(crate) fn tags(&self) -> Vec<u64> {
        self.slots
            .iter()
            .map(|slot| slot.map_or(0, |buf| buf.tag))
            .collect()
    }
}

pub(crate) fn iovecs(slots: &[Option<Registered>]) -> Vec<IoVec> {
    let iovec = |buf: Registered| IoVec {
        base: buf.addr,
        len: buf.len,
    };
    slots
        .iter()
        .map(|slot| slot.map_or_else(IoVec::default, iovec))
        .collect()
}

fn map_huge(len: usize, page: usize) -> io::Result<Mapping> {
    Mapping::huge(len).map_err(|e| {
        let pages = len / page;
        let text = format!("{pages} huge pages of {page} bytes (see ensure_huge_pages): {e}");
        io::Error::new(e.kind(), text)
    })
}

pub(crate) fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// A number of /proc/meminfo.
fn meminfo(key: &str) -> io::Result<usize> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| {
            let text = format!("/proc/meminfo has no {key}: a kernel without huge pages?");
            io::Error::new(io::ErrorKind::Unsupported, text)
        })
}

fn huge_page_size() -> io::Result<usize> {
    Ok(meminfo("Hugepagesize")? * 1024)
}

/// How many huge pages of the default size are free.
///
/// # Errors
/// `Unsupported` on a kernel without huge pages.
pub fn free_huge_pages() -> io::Result<usize> {
    meminfo("HugePages_Free")
}

/// Raises vm.nr_hugepages until `wanted` huge pages are free, as far as the
/// kernel finds memory, and returns how many are. The setting stays raised.
///
/// # Errors
/// EACCES without root; `Unsupported` on a kernel without huge pages.
pub fn ensure_huge_pages(wanted: usize) -> io::Result<usize> {
    let free = free_huge_pages()?;
    if free < wanted {
        let total = meminfo("HugePages_Total")? + wanted - free;
        fs::write(NR_HUGE, total.to_string())?;
    }
    free_huge_pages()
}
