//! Decodes what io_uring_show_fdinfo prints (io_uring/fdinfo.c; in 6.1
//! and 6.12 with unescaped names of registered files between the lines).

use std::ffi::OsString;
use std::ops::Range;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::backend::fdinfo::numbers;
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
    /// Where in the text the list of files is, empty if the kernel left it out.
    pub(super) files: Range<usize>,
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

/// Reads a whole text, once from its start to its end; `origin` names it in errors,
/// and `memory` is written over with the list.
pub(super) fn parse(
    bytes: &[u8],
    page_shift: u8,
    origin: &str,
    memory: Vec<RegisteredBuf>,
) -> Result<Text> {
    let whole = Whole { bytes, origin };
    let mut header = Header::default();
    let mut rest = bytes;
    let files = loop {
        match whole.next_line(&mut rest) {
            Some(line) if line.bytes.starts_with(b"UserFiles:") => break Some(line),
            Some(line) => header.take(&line)?,
            None => break None,
        }
    };
    let Some(sq_entries) = header.sq_entries else {
        return Ok(Text::Bare {
            inode: header.inode,
        });
    };
    let files = files.ok_or_else(|| whole.missing("UserFiles"))?;
    let nr_files = files.count()?;
    // File names come before the list of buffers and may hold anything, a
    // forged title too. Nothing after the list holds free text.
    let at = |rest: &[u8]| bytes.len() - rest.len();
    let list = at(rest);
    let mut rest = last_line(rest, b"UserBufs:").unwrap_or_default();
    let list = list..at(rest);
    let title = whole
        .next_line(&mut rest)
        .ok_or_else(|| files.wrong("no UserBufs line after UserFiles"))?;
    let nr_bufs = title.count()?;
    let cut = || whole.wrong(&[], "the text ends too early");
    if !bytes.ends_with(b"\n") {
        return Err(cut());
    }
    let mut bufs = memory;
    parse_bufs(&whole, &mut rest, nr_bufs, page_shift, &mut bufs)?;
    // Every version has these behind the list.
    last_line(rest, b"PollList:").ok_or_else(cut)?;
    let bufs = match bufs.len() {
        n if n == nr_bufs as usize => Some(bufs),
        0 => None,
        n => return Err(title.wrong(format_args!("{n} buffers are listed of {nr_bufs}"))),
    };
    let need = |name, found: Option<u32>| found.ok_or_else(|| whole.missing(name));
    Ok(Text::Ring(RingText {
        inode: header.inode,
        sq_entries,
        sq_head: need("SqHead", header.sq_head)?,
        sq_tail: need("SqTail", header.sq_tail)?,
        cq_entries: need("CqMask", header.cq_entries)?,
        cq_head: need("CqHead", header.cq_head)?,
        cq_tail: need("CqTail", header.cq_tail)?,
        sq_thread: header.sq_thread.flatten(),
        sq_cpu: header.sq_cpu.flatten(),
        nr_files,
        files: list,
        nr_bufs,
        bufs,
    }))
}

/// The paths in a list of files as it is printed from 6.18 on: one line for each slot
/// that is not empty, with its index. `None` for a list of another form.
pub(super) fn paths(list: &[u8], nr: u32) -> Option<Vec<Option<PathBuf>>> {
    /// IORING_MAX_FIXED_FILES, io_uring/rsrc.h.
    const MOST: u32 = 1 << 20;
    if nr > MOST {
        return None;
    }
    let mut paths = vec![None; nr as usize];
    let mut next = 0;
    for line in list.split_inclusive(|&byte| byte == b'\n') {
        let mut line = line.strip_suffix(b"\n")?;
        numbers::skip_spaces(&mut line);
        let index = usize::try_from(numbers::decimal(&mut line)?).ok()?;
        let path = line.strip_prefix(b": ")?;
        if index < next {
            return None;
        }
        // Without a path where d_path() has none (ENAMETOOLONG, say).
        let path = (!path.is_empty()).then(|| OsString::from_vec(unescaped(path)).into());
        *paths.get_mut(index)? = path;
        next = index + 1;
    }
    Some(paths)
}

/// A path as mangle_path() (fs/seq_file.c) has printed it: the bytes that would confuse,
/// the backslash among them, are a backslash and three octal digits.
fn unescaped(mut text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    while let Some((&first, after)) = text.split_first() {
        text = after;
        match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                text = rest;
            }
            _ => bytes.push(first),
        }
    }
    bytes
}

/// The lines before the list of files: of lines of one name the first.
#[derive(Default)]
struct Header {
    inode: Option<u64>,
    sq_entries: Option<u32>,
    sq_head: Option<u32>,
    sq_tail: Option<u32>,
    cq_entries: Option<u32>,
    cq_head: Option<u32>,
    cq_tail: Option<u32>,
    sq_thread: Option<Option<u32>>,
    sq_cpu: Option<Option<u32>>,
}

impl Header {
    fn take(&mut self, line: &Line<'_>) -> Result<()> {
        fn first<T>(slot: &mut Option<T>, read: impl FnOnce() -> Result<T>) -> Result<()> {
            if slot.is_none() {
                *slot = Some(read()?);
            }
            Ok(())
        }
        // Most lines are none of these.
        if !matches!(line.bytes, [b'i' | b'S' | b'C', _, ..]) {
            return Ok(());
        }
        match line.name() {
            b"ino" => first(&mut self.inode, || line.number()),
            b"SqMask" => first(&mut self.sq_entries, || line.entries()),
            b"SqHead" => first(&mut self.sq_head, || line.count()),
            b"SqTail" => first(&mut self.sq_tail, || line.count()),
            b"CqMask" => first(&mut self.cq_entries, || line.entries()),
            b"CqHead" => first(&mut self.cq_head, || line.count()),
            b"CqTail" => first(&mut self.cq_tail, || line.count()),
            b"SqThread" => first(&mut self.sq_thread, || line.id()),
            b"SqThreadCpu" => first(&mut self.sq_cpu, || line.id()),
            _ => Ok(()),
        }
    }
}

/// The lines of the list: every one begins with its index, right-aligned.
fn parse_bufs(
    whole: &Whole<'_>,
    rest: &mut &[u8],
    nr: u32,
    page_shift: u8,
    bufs: &mut Vec<RegisteredBuf>,
) -> Result<()> {
    bufs.clear();
    // No more than the text can hold, whatever it says.
    bufs.reserve(
        rest.len()
            .div_ceil("    0: <none>\n".len())
            .min(nr as usize),
    );
    loop {
        let mut line = *rest;
        numbers::skip_spaces(&mut line);
        if !line.first().is_some_and(u8::is_ascii_digit) {
            return Ok(());
        }
        let buf = parse_buf(&mut line, bufs.len() as u64, page_shift)
            .ok_or_else(|| whole.wrong(rest, "not a buffer of the expected index"))?;
        bufs.push(buf);
        *rest = line;
    }
}

/// `INDEX: 0xADDR/LEN` or `INDEX: <none>`, and the end of the line.
fn parse_buf(line: &mut &[u8], index: u64, page_shift: u8) -> Option<RegisteredBuf> {
    if numbers::decimal(line)? != index {
        return None;
    }
    if let Some(after) = line.strip_prefix(b": <none>\n") {
        *line = after;
        return Some(RegisteredBuf::empty(index, page_shift));
    }
    *line = line.strip_prefix(b": 0x")?;
    let addr = numbers::hex(line)?;
    *line = line.strip_prefix(b"/")?;
    let len = numbers::decimal(line)?;
    *line = line.strip_prefix(b"\n")?;
    // The placeholder of an empty slot up to 6.12.
    if addr == u64::MAX {
        return Some(RegisteredBuf::empty(index, page_shift));
    }
    addr.checked_add(len)?;
    Some(RegisteredBuf::from_range(index, addr, len, page_shift))
}

/// A text from the start of the last line that begins like this.
fn last_line<'a>(text: &'a [u8], title: &[u8]) -> Option<&'a [u8]> {
    let starts_here = |at: &usize| {
        let begins = *at == 0 || text[*at - 1] == b'\n';
        begins && text[*at..].starts_with(title)
    };
    let at = memchr::memrchr_iter(title[0], text).find(starts_here)?;
    Some(&text[at..])
}

/// The whole text, to say where something is wrong.
struct Whole<'a> {
    bytes: &'a [u8],
    origin: &'a str,
}

impl<'a> Whole<'a> {
    /// The error for the line that `rest`, the end of the text, begins with.
    fn wrong(&self, rest: &[u8], what: impl std::fmt::Display) -> Error {
        let before = &self.bytes[..self.bytes.len() - rest.len()];
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        Error::malformed(format!("{} line {line}", self.origin), what.to_string())
    }

    fn missing(&self, name: &str) -> Error {
        Error::malformed(
            self.origin,
            format!("no line {name}: though there is SqMask:"),
        )
    }

    /// The line that `rest` begins with, which is then behind it.
    fn next_line(&'a self, rest: &mut &'a [u8]) -> Option<Line<'a>> {
        if rest.is_empty() {
            return None;
        }
        let from = self.bytes.len() - rest.len();
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let bytes = &rest[..end];
        *rest = rest.get(end + 1..).unwrap_or_default();
        Some(Line {
            whole: self,
            from,
            bytes,
        })
    }
}

/// `NAME:\tVALUE`
struct Line<'a> {
    whole: &'a Whole<'a>,
    /// Where in the text it begins.
    from: usize,
    bytes: &'a [u8],
}

impl Line<'_> {
    fn wrong(&self, what: impl std::fmt::Display) -> Error {
        self.whole.wrong(&self.whole.bytes[self.from..], what)
    }

    fn name(&self) -> &[u8] {
        let colon = self.bytes.iter().position(|&byte| byte == b':');
        &self.bytes[..colon.unwrap_or(self.bytes.len())]
    }

    /// Without the blanks around it.
    fn value(&self) -> &[u8] {
        let after = self.bytes.get(self.name().len() + 1..);
        after.unwrap_or_default().trim_ascii()
    }

    fn number(&self) -> Result<u64> {
        let mut rest = self.value();
        let number = match rest.strip_prefix(b"0x") {
            Some(digits) => {
                rest = digits;
                numbers::hex(&mut rest)
            }
            None => numbers::decimal(&mut rest),
        };
        number.filter(|_| rest.is_empty()).ok_or_else(|| {
            let [name, value] = [self.name(), self.value()].map(String::from_utf8_lossy);
            self.wrong(format_args!(
                "{name}: is not followed by a number: {value:?}"
            ))
        })
    }

    fn fit(&self, number: u64) -> Result<u32> {
        u32::try_from(number).map_err(|_| self.wrong(format_args!("{number} is too large")))
    }

    fn count(&self) -> Result<u32> {
        self.fit(self.number()?)
    }

    /// A queue's size from its mask.
    fn entries(&self) -> Result<u32> {
        self.fit(self.number()?.saturating_add(1))
    }

    /// A number, or `None` for -1.
    fn id(&self) -> Result<Option<u32>> {
        match self.value() {
            b"-1" => Ok(None),
            _ => self.count().map(Some),
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

    fn parse(text: &[u8], page_shift: u8, origin: &str) -> Result<Text> {
        super::parse(text, page_shift, origin, Vec::new())
    }

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
            let wanted = ring(QUIET.as_bytes()).unwrap();
            let forged = ring(QUIET.replace("/tmp/a", name).as_bytes()).unwrap();
            // The list is as long as the name in it.
            let longer = name.len() - "/tmp/a".len();
            let files = wanted.files.start..wanted.files.end + longer;
            assert_eq!(forged, RingText { files, ..wanted }, "{name}");
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

    #[test]
    fn paths_are_those_of_their_slots_byte_for_byte() {
        let list = b"    0: /tmp/a\\040b\\134c\n    3: socket:[17]\n   10: /\xff\\012\n   11: \n";
        let path = |bytes: &[u8]| Some(PathBuf::from(OsString::from_vec(bytes.to_vec())));
        let seen = paths(list, 12).unwrap();
        assert_eq!(seen.len(), 12);
        assert_eq!(seen[0], path(b"/tmp/a b\\c"));
        assert_eq!(seen[3], path(b"socket:[17]"));
        assert_eq!(seen[10], path(b"/\xff\n"));
        assert_eq!(seen.iter().flatten().count(), 3);
        for wrong in [
            &b"    0: /a\n    0: /b\n"[..],
            b"   12: /a\n",
            b"    0: /a",
            b"/a\n",
        ] {
            assert_eq!(paths(wrong, 12), None);
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
