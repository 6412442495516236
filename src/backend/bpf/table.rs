//! The facts that BPF needs about each table: its programs, its room, its records.

use std::ffi::CStr;

use crate::backend::bpf::frames;
use crate::locator::Kind;
use crate::record::{check_all, EpollItem, RegisteredBuf, RegisteredFile, Segment};
use crate::sys::bpf::{bufs_object, epoll_object, files_object, pages_object};

/// `MAX_BUFS` in bpf/record.h: the kernel's own limit of buffers in a table.
const MAX_BUFS: usize = 16384;
/// `MAX_SLOTS` and `MAX_ITEMS` in bpf/record.h.
const MAX_SLOTS: usize = 1 << 20;

/// The facts that BPF needs about a table with records `R`.
pub(crate) struct Table<R> {
    /// The kind of object that the table belongs to.
    pub(crate) kind: Kind,
    /// The iterator target of a kernel with native iterators.
    pub(crate) target: &'static CStr,
    /// The compiled programs.
    pub(crate) object: fn() -> &'static [u8],
    /// The number of records that there is room for at first.
    pub(crate) first: usize,
    /// The largest number that there can be; a table whose `first` it is has
    /// that much room always.
    pub(crate) max: usize,
    /// Says what is wrong with records of a page shift, the first of which has
    /// this index.
    pub(crate) check: fn(&[R], usize, u8) -> Result<(), String>,
    /// The address of `struct page` of page frame 0, if records tell of pages
    /// and the caller may know their numbers.
    pub(crate) page_base: fn() -> Option<u64>,
}

pub(crate) const BUFS: Table<RegisteredBuf> = Table {
    kind: Kind::Ring,
    target: c"io_uring_buf",
    object: bufs_object,
    first: MAX_BUFS,
    max: MAX_BUFS,
    check: check_all,
    page_base: || None,
};

pub(crate) const FILES: Table<RegisteredFile> = Table {
    kind: Kind::Ring,
    target: c"io_uring_file",
    object: files_object,
    first: 1024,
    max: MAX_SLOTS,
    check: check_all,
    page_base: || None,
};

pub(crate) const EPOLL: Table<EpollItem> = Table {
    kind: Kind::Epoll,
    target: c"epoll",
    object: epoll_object,
    first: 1024,
    max: MAX_SLOTS,
    check: check_all,
    page_base: || None,
};

pub(crate) const PAGES: Table<Segment> = Table {
    kind: Kind::Ring,
    target: c"io_uring_buf",
    object: pages_object,
    first: 1024,
    max: MAX_SLOTS,
    check: check_all,
    page_base: frames::page_base,
};
