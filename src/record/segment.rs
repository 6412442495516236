//! One piece of the memory of a registered buffer.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::record::Check;

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
    /// pagemap. It also needs /proc, and a kernel whose memory map is one array
    /// (`CONFIG_SPARSEMEM_VMEMMAP` or `CONFIG_FLATMEM`, as every distribution
    /// for 64-bit machines has it).
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

    /// True if both begin in the same page, also if they belong to other buffers
    /// or rings, and if page frame numbers are not shown.
    pub fn same_page(&self, other: &Self) -> bool {
        self.page == other.page
    }
}

impl Check for Segment {
    fn check(&self, at: usize, page_shift: u8) -> Result<(), String> {
        if self.len == 0 || u64::from(self.offset) >> (page_shift & 63) != 0 {
            return Err(format!("segment {at}: {self:?}"));
        }
        Ok(())
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
