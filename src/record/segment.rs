//! One piece of the memory of a registered buffer.

use std::ffi::CStr;
#[cfg(feature = "bpf")]
use std::os::fd::BorrowedFd;

#[cfg(feature = "bpf")]
use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::backend::select::NotOpened;
use crate::backend::ReadText;
use crate::choice::Reason;
#[cfg(feature = "bpf")]
use crate::error::Error;
use crate::locator::Locator;
use crate::record::{Dumped, Room};

/// One physically contiguous piece of a registered buffer: 24 bytes, written
/// in place by the kernel side and lent without a copy.
///
/// A segment is one page or a part of one, or several pages where the kernel
/// joined those of a large folio (6.12 on). Together the segments of a buffer
/// are its bytes, in their order.
///
/// Source: `struct bio_vec`, include/linux/bvec.h.
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Segment {
    page: u64,
    pfn: u64,
    offset: u32,
    len: u32,
}

const _: () = {
    assert!(size_of::<Segment>() == 24 && align_of::<Segment>() == 8);
    assert!(std::mem::offset_of!(Segment, pfn) == 8);
    assert!(std::mem::offset_of!(Segment, offset) == 16);
    assert!(std::mem::offset_of!(Segment, len) == 20);
};

impl Segment {
    /// Where it begins: bytes from the start of its first page, less than a
    /// page.
    pub fn offset(&self) -> u32 {
        self.offset
    }

    /// The length in bytes.
    #[allow(clippy::len_without_is_empty)] // a segment is never empty
    pub fn len(&self) -> u32 {
        self.len
    }

    /// The page frame number of its first page, as `/proc/PID/pagemap` gives
    /// it and `/proc/kpageflags` takes it: in units of the machine's base page
    /// size.
    ///
    /// `None` without `CAP_SYS_ADMIN` in the initial user namespace, as with
    /// pagemap. The TaskFile backend also needs /proc for it, and a kernel
    /// whose memory map is one array (`CONFIG_SPARSEMEM_VMEMMAP` or
    /// `CONFIG_FLATMEM`, as every distribution for 64-bit machines has it).
    pub fn pfn(&self) -> Option<u64> {
        (self.pfn != 0).then_some(self.pfn)
    }

    /// The number of pages that it touches.
    pub fn nr_pages(&self) -> u64 {
        let page_size = rustix::param::page_size() as u64;
        (u64::from(self.offset) + u64::from(self.len)).div_ceil(page_size)
    }

    /// The page frame numbers of all pages that it touches; none if
    /// [`Segment::pfn`] is `None`.
    pub fn pfns(&self) -> impl Iterator<Item = u64> {
        let nr = match self.pfn() {
            Some(_) => self.nr_pages(),
            None => 0,
        };
        let first = self.pfn;
        (0..nr).map(move |i| first.wrapping_add(i))
    }

    /// True if both begin in the same page, also of other buffers and rings,
    /// and where page frame numbers are not shown.
    pub fn same_page(&self, other: &Self) -> bool {
        self.page == other.page
    }
}

impl Dumped for Segment {
    const TARGET: &'static CStr = c"io_uring_buf";
    const ROOM: Room = Room {
        map: c"records",
        first: 1024,
        max: 1 << 20, // MAX_SLOTS in bpf/pages.bpf.c
    };

    #[cfg(feature = "bpf")]
    fn object() -> &'static [u8] {
        crate::sys::bpf::pages_object()
    }

    fn check(&self, at: usize, page_shift: u8) -> Result<(), String> {
        if self.len == 0 || u64::from(self.offset) >> (page_shift & 63) != 0 {
            return Err(format!("segment {at}: {self:?}"));
        }
        Ok(())
    }

    #[cfg(feature = "bpf")]
    fn page_base() -> Option<u64> {
        crate::backend::task_file::page_base()
    }

    #[cfg(feature = "bpf")]
    fn attach_error(fd: BorrowedFd<'_>, errno: Errno) -> Option<Error> {
        crate::locator::ring_attach_error(fd, errno)
    }

    fn by_fdinfo(_address: Locator) -> Result<Box<dyn ReadText<Self>>, NotOpened> {
        Err(NotOpened::Refused(Reason::NotBuilt(
            "fdinfo does not show the pages of buffers",
        )))
    }
}

/// Without the key by which pages are compared: it is a kernel address.
impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment")
            .field("pfn", &self.pfn())
            .field("offset", &self.offset)
            .field("len", &self.len)
            .finish()
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Segment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut s = serializer.serialize_struct("Segment", 3)?;
        s.serialize_field("pfn", &self.pfn())?;
        s.serialize_field("offset", &self.offset)?;
        s.serialize_field("len", &self.len)?;
        s.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segment(pfn: u64, offset: u32, len: u32) -> Segment {
        Segment {
            page: 0,
            pfn,
            offset,
            len,
        }
    }

    #[test]
    fn pages_are_those_that_it_touches() {
        let page = rustix::param::page_size() as u32;
        assert_eq!(segment(7, 0, 1).nr_pages(), 1);
        assert_eq!(segment(7, page - 1, 1).nr_pages(), 1);
        assert_eq!(segment(7, page - 1, 2).nr_pages(), 2);
        assert_eq!(segment(7, 1, 3 * page).nr_pages(), 4);
        let pfns: Vec<u64> = segment(7, 1, 3 * page).pfns().collect();
        assert_eq!(pfns, [7, 8, 9, 10]);
    }

    #[test]
    fn without_a_number_there_are_pages_all_the_same() {
        let unknown = segment(0, 0, 1);
        assert_eq!((unknown.pfn(), unknown.nr_pages()), (None, 1));
        assert_eq!(unknown.pfns().count(), 0);
    }

    proptest! {
        /// Any 24 bytes are a record that can be looked at.
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::array::uniform24(any::<u8>())) {
            let segment = Segment::read_from_bytes(&bytes).unwrap();
            let _ = (segment.nr_pages(), segment.pfns().take(3).count(), segment.check(0, 12));
            let text = format!("{segment:?}");
            prop_assert!(!text.contains("page:"), "{text}");
        }
    }
}
