//! Decodes what io_uring_show_fdinfo prints (io_uring/fdinfo.c; in 6.1
//! and 6.12 with unescaped names of registered files between the lines).

use crate::error::{Error, Result};
use crate::record::RegisteredBuf;

/// A ring as a text describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RingText {
    pub(super) inode: Option<u64>,
    pub(super) sq_entries: u32,
    pub(super) sq_head: u32,
    pub(super) sq_tail: u32,
    pub(super) cq_entries: u32,
    pub(super) cq_head: u32,
    pub(super) cq_tail: u32,
    /// The SQPOLL thread, where the text names one.
    pub(super) sq_thread: Option<u32>,
    pub(super) sq_cpu: Option<u32>,
    pub(super) nr_files: u32,
    pub(super) nr_bufs: u32,
    /// `None` if the kernel left the list out.
    pub(super) bufs: Option<Vec<RegisteredBuf>>,
}

/// A text, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text {
    Ring(RingText),
    /// Only the lines that every file has: no ring, or one whose lock was
    /// taken (6.18 and later).
    Bare {
        inode: Option<u64>,
    },
}

impl Text {
    pub(super) fn inode(&self) -> Option<u64> {
        match self {
            Self::Ring(ring) => ring.inode,
            Self::Bare { inode } => *inode,
        }
    }
}

/// Reads a whole text; `origin` names it in errors.
pub(super) fn parse(text: &[u8], page_shift: u8, origin: &str) -> Result<Text> {
    let lines: Vec<&[u8]> = text.split(|&b| b == b'\n').collect();
    let fields = Fields {
        lines: &lines,
        origin,
    };
    let inode = fields.first("ino:")?.map(|(_, ino)| ino);
    let Some((_, sq_mask)) = fields.first("SqMask:")? else {
        return Ok(Text::Bare { inode });
    };
    // File names come before the list of buffers and may hold anything, a
    // forged title too. Nothing after the list holds free text.
    let (files_at, nr_files) = fields.need("UserFiles:")?;
    let (bufs_at, nr_bufs) = fields
        .last("UserBufs:")?
        .filter(|&(at, _)| at > files_at)
        .ok_or_else(|| fields.wrong(files_at, "no UserBufs line after UserFiles"))?;
    // Every version ends with these: without them the text was cut.
    if !text.ends_with(b"\n")
        || fields
            .last_position("PollList:")
            .is_none_or(|at| at < bufs_at)
    {
        return Err(fields.wrong(lines.len() - 1, "the text ends too early"));
    }
    let bufs = parse_bufs(&fields, bufs_at + 1, nr_bufs, page_shift)?;
    Ok(Text::Ring(RingText {
        inode,
        sq_entries: fields.entries("SqMask:", sq_mask)?,
        sq_head: fields.count("SqHead:")?,
        sq_tail: fields.count("SqTail:")?,
        cq_entries: fields.entries("CqMask:", fields.need("CqMask:")?.1)?,
        cq_head: fields.count("CqHead:")?,
        cq_tail: fields.count("CqTail:")?,
        sq_thread: fields.id("SqThread:")?,
        sq_cpu: fields.id("SqThreadCpu:")?,
        nr_files: fields.fit(files_at, nr_files)?,
        nr_bufs: fields.fit(bufs_at, nr_bufs)?,
        bufs,
    }))
}

/// The `nr` lines of the list, or none at all.
fn parse_bufs(
    fields: &Fields<'_>,
    start: usize,
    nr: u64,
    page_shift: u8,
) -> Result<Option<Vec<RegisteredBuf>>> {
    let mut bufs = Vec::new();
    for (at, line) in fields.lines.iter().enumerate().skip(start) {
        // Every line of the list begins with its index, right-aligned.
        let line = line.trim_ascii_start();
        if !line.first().is_some_and(u8::is_ascii_digit) {
            break;
        }
        let index = bufs.len() as u64;
        let buf = parse_buf(line, index, page_shift)
            .ok_or_else(|| fields.wrong(at, "not a buffer of the expected index"))?;
        bufs.push(buf);
    }
    match bufs.len() as u64 {
        n if n == nr => Ok(Some(bufs)),
        0 => Ok(None),
        n => Err(fields.wrong(start - 1, format!("{n} buffers are listed of {nr}"))),
    }
}

/// `INDEX: 0xADDR/LEN` or `INDEX: <none>`.
fn parse_buf(line: &[u8], index: u64, page_shift: u8) -> Option<RegisteredBuf> {
    let line = std::str::from_utf8(line).ok()?;
    let (at, range) = line.split_once(": ")?;
    if at.parse() != Ok(index) {
        return None;
    }
    if range == "<none>" {
        return Some(RegisteredBuf::empty(index, page_shift));
    }
    let (addr, len) = range.split_once('/')?;
    let addr = u64::from_str_radix(addr.strip_prefix("0x")?, 16).ok()?;
    let len: u64 = len.parse().ok()?;
    // The placeholder of an empty slot up to 6.12.
    if addr == u64::MAX {
        return Some(RegisteredBuf::empty(index, page_shift));
    }
    addr.checked_add(len)?;
    Some(RegisteredBuf::from_range(index, addr, len, page_shift))
}

struct Fields<'a> {
    lines: &'a [&'a [u8]],
    origin: &'a str,
}

impl Fields<'_> {
    fn wrong(&self, at: usize, what: impl std::fmt::Display) -> Error {
        Error::malformed(format!("{} line {}", self.origin, at + 1), what.to_string())
    }

    fn value(&self, at: usize, name: &str) -> Result<Option<(usize, u64)>> {
        let Some(rest) = self.lines[at].strip_prefix(name.as_bytes()) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(rest).unwrap_or_default().trim();
        let number = match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => text.parse(),
        };
        match number {
            Ok(number) => Ok(Some((at, number))),
            Err(_) => Err(self.wrong(
                at,
                format_args!("{name} is not followed by a number: {text:?}"),
            )),
        }
    }

    fn first(&self, name: &str) -> Result<Option<(usize, u64)>> {
        match self.position(name) {
            Some(at) => self.value(at, name),
            None => Ok(None),
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.lines
            .iter()
            .position(|line| line.starts_with(name.as_bytes()))
    }

    fn last_position(&self, name: &str) -> Option<usize> {
        self.lines
            .iter()
            .rposition(|line| line.starts_with(name.as_bytes()))
    }

    fn last(&self, name: &str) -> Result<Option<(usize, u64)>> {
        match self.last_position(name) {
            Some(at) => self.value(at, name),
            None => Ok(None),
        }
    }

    fn need(&self, name: &str) -> Result<(usize, u64)> {
        self.first(name)?.ok_or_else(|| {
            Error::malformed(
                self.origin,
                format!("no line {name} though there is SqMask:"),
            )
        })
    }

    fn fit(&self, at: usize, number: u64) -> Result<u32> {
        u32::try_from(number).map_err(|_| self.wrong(at, format_args!("{number} is too large")))
    }

    fn count(&self, name: &str) -> Result<u32> {
        let (at, number) = self.need(name)?;
        self.fit(at, number)
    }

    /// A queue's size from its mask.
    fn entries(&self, name: &str, mask: u64) -> Result<u32> {
        let at = self.position(name).unwrap_or(0);
        self.fit(at, mask.saturating_add(1))
    }

    /// A number, or `None` for -1 or where the line is missing.
    fn id(&self, name: &str) -> Result<Option<u32>> {
        match self.position(name) {
            Some(at) if self.lines[at].ends_with(b"\t-1") => Ok(None),
            Some(at) => {
                let (at, number) = self.value(at, name)?.unwrap_or((at, 0));
                self.fit(at, number).map(Some)
            }
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RegisteredBufs;
    use proptest::prelude::*;

    /// As 6.18 prints it, with a sparse table.
    const QUIET: &str = "pos:\t0\nflags:\t02000002\nmnt_id:\t16\nino:\t4242\n\
        SqMask:\t0x7\nSqHead:\t1\nSqTail:\t2\nCachedSqHead:\t1\n\
        CqMask:\t0xf\nCqHead:\t3\nCqTail:\t5\nCachedCqTail:\t5\nSQEs:\t0\nCQEs:\t0\n\
        SqThread:\t77\nSqThreadCpu:\t-1\nSqTotalTime:\t0\nSqWorkTime:\t0\n\
        UserFiles:\t2\n    0: /tmp/a\n\
        UserBufs:\t3\n    0: 0x7f0000001001/4096\n    1: <none>\n    2: 0x7f0000003000/1\n\
        PollList:\nCqOverflowList:\nNAPI:\tdisabled\n";

    fn ring(text: &[u8]) -> Result<RingText> {
        match parse(text, 12, "a text")? {
            Text::Ring(ring) => Ok(ring),
            Text::Bare { .. } => panic!("no ring in it"),
        }
    }

    #[test]
    fn a_quiet_ring_is_read_in_full() {
        let ring = ring(QUIET.as_bytes()).unwrap();
        assert_eq!(ring.inode, Some(4242));
        assert_eq!((ring.sq_entries, ring.cq_entries), (8, 16));
        assert_eq!((ring.cq_head, ring.cq_tail), (3, 5));
        assert_eq!((ring.sq_thread, ring.sq_cpu), (Some(77), None));
        assert_eq!((ring.nr_files, ring.nr_bufs), (2, 3));
        let bufs = ring.bufs.unwrap();
        assert!(bufs[1].is_empty_slot());
        assert_eq!((bufs[0].addr(), bufs[0].len()), (0x7f0000001001, 4096));
        assert_eq!(bufs[0].nr_pages(), 2);
        assert_eq!(bufs.filled().count(), 2);
        assert_eq!(bufs[0].tag(), None);
    }

    #[test]
    fn a_list_that_is_left_out_is_no_empty_list() {
        let at = QUIET.find("    0: 0x").unwrap();
        let end = QUIET.find("PollList").unwrap();
        let busy = format!("{}{}", &QUIET[..at], &QUIET[end..]);
        let ring = ring(busy.as_bytes()).unwrap();
        assert_eq!((ring.nr_bufs, ring.bufs), (3, None));
    }

    #[test]
    fn a_ring_whose_lock_is_taken_may_be_bare() {
        let text = &QUIET.as_bytes()[..QUIET.find("SqMask").unwrap()];
        assert_eq!(
            parse(text, 12, "a text").unwrap(),
            Text::Bare { inode: Some(4242) }
        );
    }

    #[test]
    fn a_list_cut_in_half_is_an_error_that_says_where() {
        let cut = QUIET.replace("    2: 0x7f0000003000/1\n", "");
        let error = ring(cut.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("line 21"), "{error}");
        assert!(error.contains("2 buffers are listed of 3"), "{error}");
    }

    #[test]
    fn a_file_name_forges_nothing() {
        // 6.1 and 6.12 print names as they are, newlines included.
        for name in [
            "x\nUserBufs:\t1\n    0: 0x1000/9",
            "x\nPollList:\n",
            "x\nUserFiles:\t9\nSqMask:\t0x0\nino:\t1",
        ] {
            let forged = ring(QUIET.replace("/tmp/a", name).as_bytes()).unwrap();
            assert_eq!(forged, ring(QUIET.as_bytes()).unwrap(), "{name}");
        }
    }

    #[test]
    fn placeholders_of_old_kernels_are_empty_slots() {
        let old = QUIET.replace("<none>", "0xffffffffffffffff/4294967295");
        assert!(ring(old.as_bytes()).unwrap().bufs.unwrap()[1].is_empty_slot());
    }

    #[test]
    fn absurd_numbers_are_refused() {
        for (from, to) in [
            ("UserBufs:\t3", "UserBufs:\t99999999999999999999"),
            ("UserBufs:\t3", "UserBufs:\t4294967296"),
            ("UserFiles:\t2", "UserFiles:\t-1"),
            ("SqMask:\t0x7", "SqMask:\t0xffffffffffffffff"),
            ("CqHead:\t3", "CqHead:\t"),
            ("0x7f0000003000/1", "0xfffffffffffffffe/4096"),
            ("0x7f0000003000/1", "0x7f0000003000/18446744073709551616"),
        ] {
            assert!(ring(QUIET.replace(from, to).as_bytes()).is_err(), "{to}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(text in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&text, 12, "a text");
        }

        /// A text that was cut gives the whole list or an error.
        #[test]
        fn truncated_texts_lose_nothing_silently(cut in 0usize..QUIET.len()) {
            let whole = ring(QUIET.as_bytes()).unwrap();
            if let Ok(Text::Ring(part)) = parse(&QUIET.as_bytes()[..cut], 12, "a text") {
                prop_assert_eq!(part, whole);
            }
        }

        #[test]
        fn mangled_texts_never_panic(at in 0usize..QUIET.len(), byte in any::<u8>()) {
            let mut text = QUIET.as_bytes().to_vec();
            text[at] = byte;
            let _ = parse(&text, 12, "a text");
        }

        #[test]
        fn what_is_printed_is_read_back(ranges in proptest::collection::vec(
            proptest::option::of((1u64..1 << 47, 1u64..1 << 30)), 0..50)) {
            let mut list = format!("UserBufs:\t{}\n", ranges.len());
            for (i, range) in ranges.iter().enumerate() {
                list += &match range {
                    Some((addr, len)) => format!("{i:5}: 0x{addr:x}/{len}\n"),
                    None => format!("{i:5}: <none>\n"),
                };
            }
            let at = QUIET.find("UserBufs").unwrap();
            let end = QUIET.find("PollList").unwrap();
            let text = format!("{}{list}{}", &QUIET[..at], &QUIET[end..]);
            let bufs = ring(text.as_bytes()).unwrap().bufs.unwrap();
            let read: Vec<_> = bufs.iter()
                .map(|b| (!b.is_empty_slot()).then(|| (b.addr(), b.len()))).collect();
            prop_assert_eq!(read, ranges);
        }
    }
}
