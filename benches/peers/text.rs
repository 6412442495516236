//! The peer: /proc/PID/fdinfo/FD, read and parsed as fast as we can. The file is
//! kept open, so that the kernel keeps its buffer of the right size, and so is
//! ours; one read(2) takes all.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

pub(crate) struct Text {
    path: String,
    file: File,
    bytes: Vec<u8>,
}

impl Text {
    /// Of a descriptor of a process.
    pub(crate) fn open(pid: u32, fd: i32) -> io::Result<Self> {
        let path = format!("/proc/{pid}/fdinfo/{fd}");
        Ok(Self {
            file: File::open(&path)?,
            path,
            bytes: vec![0; 1 << 16],
        })
    }

    /// Another one, with the same buffer of ours.
    pub(crate) fn turn_to(&mut self, pid: u32, fd: i32) -> io::Result<()> {
        self.path.clear();
        write!(self.path, "/proc/{pid}/fdinfo/{fd}").map_err(io::Error::other)?;
        self.reopen()
    }

    /// The kernel begins anew, with a buffer of one page that it doubles until all
    /// fits; ours is kept.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        self.file = File::open(&self.path)?;
        Ok(())
    }

    /// All of it, as it is now.
    pub(crate) fn read(&mut self) -> io::Result<&[u8]> {
        let mut end = 0;
        loop {
            let read = self.file.read_at(&mut self.bytes[end..], end as u64)?;
            end += read;
            match (read, end == self.bytes.len()) {
                (0, false) => return Ok(&self.bytes[..end]),
                (_, true) => self.bytes.resize(2 * end, 0),
                _ => {}
            }
        }
    }
}

/// The lines of a list and what follows it: `NAME:\t3\n` and three lines.
fn list<'a>(text: &'a [u8], title: &str) -> Option<(usize, &'a [u8])> {
    let at = memchr::memmem::find(text, title.as_bytes())?;
    let mut rest = &text[at + title.len()..];
    let count = decimal(skip_blanks(&mut rest))?;
    Some((count as usize, past(rest, b'\n')?))
}

/// Address and length of each registered buffer; `None` if the list is not there
/// (the kernel leaves it out when the ring is busy) or is no such list.
///
/// `    3: 0x7f0012340000/4096`
pub(crate) fn bufs(text: &[u8], into: &mut Vec<(u64, u64)>) -> Option<()> {
    into.clear();
    let (count, mut rest) = list(text, "UserBufs:")?;
    into.reserve(count);
    for _ in 0..count {
        rest = past(rest, b'x')?;
        let addr = hex(&mut rest)?;
        rest = rest.strip_prefix(b"/")?;
        let len = decimal(&mut rest)?;
        rest = rest.strip_prefix(b"\n")?;
        into.push((addr, len));
    }
    Some(())
}

/// The name of each registered file, as [`bufs`].
///
/// `    3: pipe:[1234]`
pub(crate) fn files<'a>(text: &'a [u8], into: &mut Vec<&'a [u8]>) -> Option<()> {
    into.clear();
    let (count, mut rest) = list(text, "UserFiles:")?;
    into.reserve(count);
    for _ in 0..count {
        let colon = memchr::memchr(b':', rest)?;
        let end = memchr::memchr(b'\n', rest)?;
        into.push(rest.get(colon + 2..end)?);
        rest = &rest[end + 1..];
    }
    Some(())
}

/// Descriptor, events and data of each item of an epoll set.
///
/// `tfd:        5 events:       19 data:                5  pos:0 ino:1032 sdev:e`
pub(crate) fn items(text: &[u8], into: &mut Vec<(u64, u64, u64)>) -> Option<()> {
    into.clear();
    let Some(at) = memchr::memmem::find(text, b"tfd:") else {
        return Some(());
    };
    let mut rest = &text[at..];
    while let Some(line) = rest.strip_prefix(b"tfd:") {
        rest = line;
        let fd = decimal(skip_blanks(&mut rest))?;
        rest = rest.strip_prefix(b" events:")?;
        let events = hex(skip_blanks(&mut rest))?;
        rest = rest.strip_prefix(b" data:")?;
        let data = hex(skip_blanks(&mut rest))?;
        rest = past(rest, b'\n')?;
        into.push((fd, events, data));
    }
    Some(())
}

/// What follows the next `byte`.
fn past(text: &[u8], byte: u8) -> Option<&[u8]> {
    Some(&text[memchr::memchr(byte, text)? + 1..])
}

fn skip_blanks<'a, 'b>(rest: &'b mut &'a [u8]) -> &'b mut &'a [u8] {
    while let Some((b' ' | b'\t', after)) = rest.split_first() {
        *rest = after;
    }
    rest
}

fn decimal(rest: &mut &[u8]) -> Option<u64> {
    number(rest, 10)
}

fn hex(rest: &mut &[u8]) -> Option<u64> {
    number(rest, 16)
}

#[inline(always)]
fn number(rest: &mut &[u8], base: u64) -> Option<u64> {
    let (mut value, mut any) = (0_u64, false);
    while let Some((&digit, after)) = rest.split_first() {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' if base == 16 => digit - b'a' + 10,
            _ => break,
        };
        value = value * base + u64::from(digit);
        (*rest, any) = (after, true);
    }
    any.then_some(value)
}

/// The address of the first registered buffer.
pub(crate) fn first_buf(text: &[u8]) -> Option<u64> {
    let (_, rest) = list(text, "UserBufs:")?;
    hex(&mut past(rest, b'x')?)
}
