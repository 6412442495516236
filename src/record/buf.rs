//! One slot of a ring's table of registered buffers.

use std::fmt;

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::names;
use crate::record::Check;

const FILLED: u8 = 1 << 0;
const KERNEL: u8 = 1 << 1;
const TAG_KNOWN: u8 = 1 << 2;
const ORIGIN_KNOWN: u8 = 1 << 3;
const PAGES_UNKNOWN: u32 = u32::MAX;

bitflags! {
    /// The fields of a [`RegisteredBuf`] that not every backend can know.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct BufFields: u32 {
        /// [`RegisteredBuf::tag`]
        const TAG = 1 << 0;
        /// [`RegisteredBuf::nr_bvecs`]
        const NR_BVECS = 1 << 1;
        /// [`RegisteredBuf::bvec_shift`]
        const BVEC_SHIFT = 1 << 2;
        /// [`RegisteredBuf::acct_pages`]
        const ACCT_PAGES = 1 << 3;
        /// [`RegisteredBuf::refs`]
        const REFS = 1 << 4;
        /// [`RegisteredBuf::is_kernel`]
        const ORIGIN = 1 << 5;
        /// [`RegisteredBuf::direction`]
        const DIRECTION = 1 << 6;
    }
}

bitflags! {
    /// The uses that I/O may make of a buffer.
    ///
    /// Source: `imu->dir`, io_uring/rsrc.h, Linux 6.15. Before that every
    /// registered buffer could be used both ways.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Direction: u8 {
        /// I/O may write into the buffer (a read request fills it).
        const DEST = 1 << 0;
        /// I/O may read from the buffer (a write request drains it).
        const SOURCE = 1 << 1;
    }
}

/// Prints `dest`, `source` or `dest|source`.
impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (bit, name) in [(Self::DEST, "dest"), (Self::SOURCE, "source")] {
            if self.contains(bit) {
                f.write_str(separator)?;
                f.write_str(name)?;
                separator = "|";
            }
        }
        match self.difference(Self::all()) {
            rest if rest.is_empty() => Ok(()),
            rest => write!(f, "{separator}{:#x}", rest.bits()),
        }
    }
}

impl fmt::Display for BufFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        names::write(self, f)
    }
}

/// One slot of a ring's table of registered buffers: 48 bytes, written in
/// place by the kernel side and lent without a copy.
///
/// An empty slot of a sparse table is a record too, with only its index:
/// [`RegisteredBuf::is_empty_slot`].
///
/// Accessors that return an `Option` give `None` where the backend or the
/// kernel does not know the value; [`BufFields`] names these fields, and
/// [`Snapshot::known_fields`](crate::Snapshot::known_fields) says which are
/// known in a snapshot.
///
/// Source: `struct io_mapped_ubuf` and `struct io_rsrc_node`,
/// io_uring/rsrc.h.
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RegisteredBuf {
    index: u64,
    addr: u64,
    len: u64,
    tag: u64,
    nr_bvecs: u32,
    refs: u32,
    acct_pages: u32,
    bvec_shift: u8,
    page_shift: u8,
    dir: u8,
    flags: u8,
}

const _: () = {
    assert!(size_of::<RegisteredBuf>() == 48 && align_of::<RegisteredBuf>() == 8);
    assert!(std::mem::offset_of!(RegisteredBuf, tag) == 24);
    assert!(std::mem::offset_of!(RegisteredBuf, nr_bvecs) == 32);
    assert!(std::mem::offset_of!(RegisteredBuf, refs) == 36);
    assert!(std::mem::offset_of!(RegisteredBuf, acct_pages) == 40);
    assert!(std::mem::offset_of!(RegisteredBuf, bvec_shift) == 44);
    assert!(std::mem::offset_of!(RegisteredBuf, flags) == 47);
};

impl RegisteredBuf {
    /// A slot without a buffer.
    pub(crate) fn empty(index: u64, page_shift: u8) -> Self {
        Self {
            index,
            addr: 0,
            len: 0,
            tag: 0,
            nr_bvecs: 0,
            refs: 0,
            acct_pages: 0,
            bvec_shift: 0,
            page_shift,
            dir: 0,
            flags: 0,
        }
    }

    /// A buffer of which only the address and the length are known.
    pub(crate) fn from_range(index: u64, addr: u64, len: u64, page_shift: u8) -> Self {
        Self {
            addr,
            len,
            acct_pages: PAGES_UNKNOWN,
            flags: FILLED,
            ..Self::empty(index, page_shift)
        }
    }

    /// The slot's index, counted from 0: `buf_index` of a request.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// True for a slot that holds no buffer.
    pub fn is_empty_slot(&self) -> bool {
        self.flags & FILLED == 0
    }

    /// The address in the process that registered the buffer; 0 for a buffer
    /// that the kernel provides. The mapping there may be gone or replaced:
    /// the pages stay pinned all the same.
    pub fn addr(&self) -> u64 {
        self.addr
    }

    /// The length in bytes.
    #[allow(clippy::len_without_is_empty)] // a registered buffer is never empty
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The tag that was given at registration, 0 for none.
    pub fn tag(&self) -> Option<u64> {
        (self.flags & TAG_KNOWN != 0).then_some(self.tag)
    }

    /// The number of segments (`struct bio_vec`) that the buffer is made of:
    /// one a page, or one a folio where the kernel could join pages.
    pub fn nr_bvecs(&self) -> Option<u32> {
        (self.nr_bvecs != 0).then_some(self.nr_bvecs)
    }

    /// The base-2 logarithm of the size in bytes of a full segment: that of a
    /// page, or that of a folio (6.12 on).
    pub fn bvec_shift(&self) -> Option<u8> {
        (self.bvec_shift != 0).then_some(self.bvec_shift)
    }

    /// The number of pages that the range `addr .. addr + len` touches, of
    /// the machine's base page size. For a buffer of the kernel, whose address
    /// is not known, the least number of pages that can hold its length.
    pub fn nr_pages(&self) -> u64 {
        let mask = (1u64 << (self.page_shift & 63)) - 1;
        let offset = self.addr & mask;
        // Whole pages and rest apart, so that no length can overflow.
        let (whole, rest) = (self.len & !mask, self.len & mask);
        (whole >> (self.page_shift & 63)) + (offset + rest).div_ceil(mask + 1)
    }

    /// The number of pages that this buffer pins on behalf of its user:
    /// [`RegisteredBuf::nr_pages`], and 0 for a buffer of the kernel.
    pub fn pinned_pages(&self) -> u64 {
        match self.is_kernel() {
            Some(true) => 0,
            _ => self.nr_pages(),
        }
    }

    /// [`RegisteredBuf::pinned_pages`] in bytes.
    pub fn pinned_bytes(&self) -> u64 {
        self.pinned_pages()
            .saturating_mul(1u64 << (self.page_shift & 63))
    }

    /// The number of pages charged to `RLIMIT_MEMLOCK` for this buffer. A
    /// huge page is charged whole, and once a ring; what is charged is counted
    /// also when the ring's creator was exempt by `CAP_IPC_LOCK`.
    pub fn acct_pages(&self) -> Option<u32> {
        (self.acct_pages != PAGES_UNKNOWN).then_some(self.acct_pages)
    }

    /// The number of references to the buffer: 1, and one more for each table
    /// that shares it (`IORING_REGISTER_CLONE_BUFFERS`, 6.12).
    pub fn refs(&self) -> Option<u32> {
        (self.refs != 0).then_some(self.refs)
    }

    /// True for a buffer that the kernel provides (a block request lent by
    /// ublk, 6.15), false for memory of a process.
    pub fn is_kernel(&self) -> Option<bool> {
        (self.flags & ORIGIN_KNOWN != 0).then_some(self.flags & KERNEL != 0)
    }

    /// The uses that I/O may make of the buffer.
    pub fn direction(&self) -> Option<Direction> {
        (self.dir != 0).then(|| Direction::from_bits_retain(self.dir))
    }

    /// The size in bytes of a page of the machine that the record is from.
    pub fn page_size(&self) -> u64 {
        1u64 << (self.page_shift & 63)
    }
}

impl Check for RegisteredBuf {
    fn check(&self, at: usize, page_shift: u8) -> Result<(), String> {
        let known = FILLED | KERNEL | TAG_KNOWN | ORIGIN_KNOWN;
        if self.index != at as u64 {
            return Err(format!("record {at} carries index {}", self.index));
        }
        if self.page_shift != page_shift {
            return Err(format!("record {at}: page shift {}", self.page_shift));
        }
        if self.flags & !known != 0 {
            return Err(format!("record {at}: flags {:#04x}", self.flags));
        }
        if !self.is_empty_slot() && self.addr.checked_add(self.len).is_none() {
            return Err(format!(
                "record {at}: address {:#x} and length {:#x} overflow",
                self.addr, self.len
            ));
        }
        if self.bvec_shift >= 64 {
            return Err(format!("record {at}: segment shift {}", self.bvec_shift));
        }
        Ok(())
    }
}

impl fmt::Debug for RegisteredBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty_slot() {
            return write!(f, "RegisteredBuf {{ index: {}, empty }}", self.index);
        }
        f.debug_struct("RegisteredBuf")
            .field("index", &self.index)
            .field("addr", &format_args!("{:#x}", self.addr))
            .field("len", &self.len)
            .field("tag", &self.tag())
            .field("nr_bvecs", &self.nr_bvecs())
            .field("bvec_shift", &self.bvec_shift())
            .field("acct_pages", &self.acct_pages())
            .field("refs", &self.refs())
            .field("is_kernel", &self.is_kernel())
            .field("direction", &self.direction())
            .finish()
    }
}

/// Sums and views of a whole table, for `[RegisteredBuf]`.
pub trait RegisteredBufs {
    /// The slots that hold a buffer, in the order of their index.
    fn filled(&self) -> impl Iterator<Item = &RegisteredBuf>;

    /// The sum of [`RegisteredBuf::pinned_bytes`]. A page that two buffers
    /// share counts twice.
    fn pinned_bytes(&self) -> u64 {
        self.filled()
            .fold(0, |sum, buf| sum.saturating_add(buf.pinned_bytes()))
    }

    /// The sum of [`RegisteredBuf::acct_pages`], `None` if one is not known.
    fn acct_pages(&self) -> Option<u64> {
        self.filled()
            .try_fold(0, |sum, buf| Some(sum + u64::from(buf.acct_pages()?)))
    }
}

impl RegisteredBufs for [RegisteredBuf] {
    fn filled(&self) -> impl Iterator<Item = &RegisteredBuf> {
        self.iter().filter(|buf| !buf.is_empty_slot())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn buf(addr: u64, len: u64) -> RegisteredBuf {
        RegisteredBuf::from_range(0, addr, len, 12)
    }

    #[test]
    fn pages_are_those_that_the_range_touches() {
        assert_eq!(buf(0x1000, 1).nr_pages(), 1);
        assert_eq!(buf(0x1000, 4096).nr_pages(), 1);
        assert_eq!(buf(0x1fff, 1).nr_pages(), 1);
        assert_eq!(buf(0x1fff, 2).nr_pages(), 2);
        assert_eq!(buf(0x1001, 4096).nr_pages(), 2);
        assert_eq!(buf(0x1000, 1 << 30).nr_pages(), 1 << 18);
        assert_eq!(buf(0x1001, 1 << 30).nr_pages(), (1 << 18) + 1);
    }

    #[test]
    fn uses_are_named_and_what_has_no_name_is_a_number() {
        let text = |bits| Direction::from_bits_retain(bits).to_string();
        assert_eq!(
            [0, 1, 2, 3, 4, 7].map(text),
            [
                "",
                "dest",
                "source",
                "dest|source",
                "0x4",
                "dest|source|0x4"
            ]
        );
    }

    #[test]
    fn empty_slots_are_skipped_and_counted_nowhere() {
        let table = [RegisteredBuf::empty(0, 12), buf(0x1fff, 2)];
        assert_eq!(table.filled().count(), 1);
        assert_eq!(table.pinned_bytes(), 8192);
        assert_eq!(RegisteredBufs::acct_pages(&table[..]), None);
    }

    proptest! {
        /// Any 48 bytes are a record that can be looked at.
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::array::uniform32(any::<u8>()),
                                     more in proptest::array::uniform16(any::<u8>())) {
            let all = [&bytes[..], &more[..]].concat();
            let record = RegisteredBuf::read_from_bytes(&all).unwrap();
            let _ = (record.nr_pages(), record.pinned_bytes(), record.page_size());
            let _ = format!("{record:?}");
            let _ = record.check(0, 12);
            let table = [record, record];
            let _ = (table.pinned_bytes(), RegisteredBufs::acct_pages(&table[..]));
        }

        /// Truncated or misaligned memory is refused, never read.
        #[test]
        fn wrong_lengths_are_refused(len in 0usize..200, offset in 0usize..8) {
            let memory = [0u64; 32];
            let bytes = &memory.as_bytes()[offset..offset + len];
            let records = <[RegisteredBuf]>::ref_from_bytes(bytes);
            prop_assert_eq!(records.is_ok(), len % 48 == 0 && offset == 0);
        }

        #[test]
        fn nr_pages_is_what_counting_gives(addr in 0u64..1 << 20, len in 1u64..1 << 16) {
            let pages = (addr + len - 1) / 4096 - addr / 4096 + 1;
            prop_assert_eq!(buf(addr, len).nr_pages(), pages);
        }
    }
}
