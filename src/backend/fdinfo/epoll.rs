//! Reads the items of one epoll set from its fdinfo (ep_show_fdinfo,
//! fs/eventpoll.c).
//!
//! The kernel prints the list under `ep->mtx`, for which it waits. It does not
//! say which set it is: only that the descriptor is one is looked at, by its items or,
//! where there are none, by its link.

use std::io;

use rustix::fs::CWD;

use crate::backend::fdinfo::file::Fdinfo;
use crate::backend::fdinfo::numbers::{hex, signed, skip_spaces};
use crate::backend::fdinfo::proc::{self, is_gone};
use crate::backend::reader::{How, Opened, Reader};
use crate::backend::select::NotOpened;
use crate::choice::Backend;
use crate::error::{Error, Missed, Result};
use crate::locator::{Locator, Place, EPOLL};
use crate::record::{BufFields, Consistency, EpollItem, FileIdentity, Snapshot};
use crate::retry::Retry;
use crate::ring::Via;

/// Opens an epoll set by its descriptor.
pub(crate) fn open(locator: Locator) -> Opened<EpollItem> {
    Ok(Box::new(EpollReader {
        source: Source::open(locator)?,
        text: Vec::new(),
        records: Vec::new(),
    }))
}

/// Reads the items of one epoll set, again and again.
struct EpollReader {
    source: Source,
    text: Vec<u8>,
    records: Vec<EpollItem>,
}

impl EpollReader {
    fn read_once(&mut self) -> Result<(), Missed> {
        let fdinfo = &self.source.fdinfo;
        if !fdinfo.read(&mut self.text)? {
            return Err(self.source.locator.gone().into());
        }
        if !begins_with_items(&self.text) {
            self.source.check()?;
        }
        Ok(parse(&self.text, fdinfo.path(), &mut self.records)?)
    }
}

impl Reader<EpollItem> for EpollReader {
    fn backend(&self) -> Backend {
        Backend::Fdinfo
    }

    fn locator(&self) -> &Locator {
        &self.source.locator
    }

    fn attach(&mut self, locator: Locator) -> Result<(), NotOpened> {
        self.source = Source::open(locator)?;
        Ok(())
    }

    fn read(&mut self, how: How, _slot: u64, retry: &Retry) -> Result<Snapshot<'_, EpollItem>> {
        let name = self.source.locator.name();
        let ((), attempts) = how.bounds(retry).run(name, || self.read_once())?;
        Ok(Snapshot {
            records: &self.records,
            consistency: Consistency::Locked,
            backend: Backend::Fdinfo,
            unknown: BufFields::all(),
            attempts,
        })
    }
}

/// An epoll set by its descriptor.
struct Source {
    locator: Locator,
    fdinfo: Fdinfo,
    /// The path of the link to the file.
    link: String,
}

impl Source {
    /// By the first of its holders that still has it, as far as that can be told.
    fn open(locator: Locator) -> Result<Self, NotOpened> {
        proc::check()?;
        for place in &locator.places {
            match Self::at(*place, &locator) {
                Err(Error::EpollGone { .. }) => {}
                other => return Ok(other?),
            }
        }
        Err(locator.gone().into())
    }

    fn at(place: Place, locator: &Locator) -> Result<Self> {
        let Place { tid, via, .. } = place;
        let Via::Descriptor(fd) = via else {
            return Err(locator.gone());
        };
        let source = Self {
            fdinfo: Fdinfo::open(tid, fd)?.ok_or_else(|| locator.gone())?,
            link: format!("/proc/{tid}/fd/{fd}"),
            locator: locator.clone(),
        };
        source.check()?;
        Ok(source)
    }

    /// The descriptor has to be an epoll set.
    fn check(&self) -> Result<()> {
        match proc::links_to(CWD, &self.link, EPOLL).map_err(io::Error::from) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.locator.gone()),
            Err(e) if is_gone(&e) => Err(self.locator.gone()),
            Err(e) => Err(proc::failed(&self.link, e)),
        }
    }
}

/// The begin of an item's line.
const ITEM: &[u8] = b"tfd:";

/// The begins of the lines that stand first in the text of every file
/// (seq_show(), fs/proc/fd.c).
const EVERY_FILE: [&[u8]; 5] = [b"pos:", b"flags:", b"mnt_id:", b"ino:", b"lock:"];

/// True for the text of an epoll set with items. Other files may have names in their
/// text, with line breaks in them and so with lines like those of items, but not as the
/// first that only they have.
fn begins_with_items(text: &[u8]) -> bool {
    let mut rest = text;
    while EVERY_FILE.iter().any(|name| rest.starts_with(name)) {
        skip_line(&mut rest);
    }
    rest.starts_with(ITEM)
}

/// Reads a whole text; `origin` names it in errors.
fn parse(text: &[u8], origin: &str, items: &mut Vec<EpollItem>) -> Result<()> {
    items.clear();
    let mut rest = text;
    while !rest.is_empty() {
        if !rest.starts_with(ITEM) {
            skip_line(&mut rest);
            continue;
        }
        let mut line = rest;
        let item = item(&mut line).ok_or_else(|| {
            let before = &text[..text.len() - rest.len()];
            let at = 1 + memchr::memchr_iter(b'\n', before).count();
            Error::malformed(format!("{origin} line {at}"), "not an item of an epoll set")
        })?;
        items.push(item);
        rest = line;
    }
    Ok(())
}

fn skip_line(rest: &mut &[u8]) {
    let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
    *rest = rest.get(end + 1..).unwrap_or_default();
}

/// `tfd:        5 events:       19 data:                5  pos:0 ino:40c sdev:e`, and
/// the end of the line.
fn item(rest: &mut &[u8]) -> Option<EpollItem> {
    let fd = i32::try_from(value(rest, ITEM, signed)?).ok()?;
    let events = u32::try_from(value(rest, b"events:", hex)?).ok()?;
    let data = value(rest, b"data:", hex)?;
    let pos = value(rest, b"pos:", signed)?;
    let inode = value(rest, b"ino:", hex)?;
    let device = u32::try_from(value(rest, b"sdev:", hex)?).ok()?;
    *rest = rest.strip_prefix(b"\n")?;
    let file = FileIdentity::of_unknown_kind(inode, device, pos);
    Some(EpollItem::new(fd, events, data, file))
}

#[inline(always)]
fn value<T>(rest: &mut &[u8], name: &[u8], number: impl Fn(&mut &[u8]) -> Option<T>) -> Option<T> {
    skip_spaces(rest);
    *rest = rest.strip_prefix(name)?;
    skip_spaces(rest);
    number(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::FileKind;
    use proptest::prelude::*;

    const TEXT: &str = "pos:\t0\nflags:\t02000002\nmnt_id:\t16\nino:\t1036\n\
        tfd:       12 events: c0000019 data: ffffffffffffffff  pos:7 ino:40c sdev:800001\n\
        tfd:        5 events:       19 data:                5  pos:-1 ino:0 sdev:e\n";

    fn parse(text: &str, origin: &str) -> Result<Vec<EpollItem>> {
        let mut items = Vec::new();
        super::parse(text.as_bytes(), origin, &mut items)?;
        Ok(items)
    }

    #[test]
    fn items_are_read_in_full() {
        let items = parse(TEXT, "a text").unwrap();
        let [one, two] = &items[..] else {
            panic!("{items:?}")
        };
        assert_eq!((one.fd(), one.data()), (12, u64::MAX));
        assert_eq!(one.events().bits(), 0xc000_0019);
        let file = one.file();
        assert_eq!((file.inode(), file.device()), (0x40c, (8, 1)));
        assert_eq!((file.position(), file.kind()), (7, FileKind::Unknown));
        assert_eq!((two.fd(), two.data(), two.file().position()), (5, 5, -1));
        assert!(!one.file().same_file(one.file()), "it is not known");
    }

    #[test]
    fn a_set_without_items_has_none() {
        let text = &TEXT[..TEXT.find("tfd").unwrap()];
        assert_eq!(parse(text, "a text").unwrap(), []);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_line() {
        for (from, to) in [
            ("events: c0000019", "events: 1c0000019"),
            ("data: ffffffffffffffff", "data: 1ffffffffffffffff"),
            ("tfd:       12", "tfd:       x"),
            ("sdev:800001", ""),
            ("sdev:800001", "sdev:800001 more"),
        ] {
            let error = parse(&TEXT.replace(from, to), "a text").unwrap_err();
            assert!(error.to_string().contains("line 5"), "{error}");
        }
    }

    #[test]
    fn only_items_that_come_first_show_a_set() {
        assert!(begins_with_items(TEXT.as_bytes()));
        let lock = "ino:\t1036\nlock:\t1: FLOCK  ADVISORY  WRITE 7 00:05:9 0 EOF\n";
        let locked = TEXT.replace("ino:\t1036\n", lock);
        assert!(begins_with_items(locked.as_bytes()));
        // A ring of 6.12 with a registered file of such a name; a dma-buf.
        for own in [
            "SqMask:\t0x7\nUserFiles:\t1\n    0: x\n",
            "size:\t1\nname:\tx\n",
        ] {
            let forged = TEXT.replacen("tfd:", &format!("{own}tfd:"), 1);
            assert!(!begins_with_items(forged.as_bytes()), "{own}");
        }
        let empty = &TEXT[..TEXT.find("tfd").unwrap()];
        assert!(!begins_with_items(empty.as_bytes()));
    }

    proptest! {
        #[test]
        fn hostile_lines_never_panic(text in "(tfd:[ -~]{0,80}\n){0,5}") {
            let _ = parse(&text, "a text");
        }
    }
}
