//! Reads the items of one epoll set from its fdinfo (ep_show_fdinfo,
//! fs/eventpoll.c).
//!
//! The kernel prints the list under `ep->mtx`, for which it waits. It does not
//! say which set it is: only that the descriptor is one is looked at.

use std::fs;
use std::io;

use crate::backend::fdinfo::proc::{self, is_gone};
use crate::backend::reader::{How, Opened, Reader};
use crate::backend::select::NotOpened;
use crate::choice::Backend;
use crate::error::{Error, Missed, Result};
use crate::locator::{Locator, Name, EPOLL};
use crate::record::{BufFields, Consistency, EpollItem, FileIdentity, Snapshot};
use crate::retry::Retry;

/// Opens an epoll set by its descriptor.
pub(crate) fn open(locator: Locator) -> Opened<EpollItem> {
    Ok(Box::new(EpollReader::open(locator)?))
}

/// Reads the items of one epoll set, again and again.
struct EpollReader {
    locator: Locator,
    records: Vec<EpollItem>,
}

impl EpollReader {
    fn open(locator: Locator) -> Result<Self, NotOpened> {
        proc::check()?;
        let reader = Self {
            locator,
            records: Vec::new(),
        };
        reader.text()?;
        Ok(reader)
    }

    /// The text, with its path.
    fn text(&self) -> Result<(String, String)> {
        let Name::Epoll { pid, fd } = self.locator.name() else {
            return Err(self.locator.gone());
        };
        let path = format!("/proc/{pid}/fdinfo/{fd}");
        let text = self.judge(&path, fs::read_to_string(&path))?;
        // Every file has such a text; an empty set has nothing more in it.
        let path_of = format!("/proc/{pid}/fd/{fd}");
        let link = self.judge(&path_of, fs::read_link(&path_of))?;
        match link.as_os_str() == EPOLL {
            true => Ok((path, text)),
            false => Err(self.locator.gone()),
        }
    }

    fn judge<T>(&self, path: &str, read: io::Result<T>) -> Result<T> {
        read.map_err(|e| match is_gone(&e) {
            true => self.locator.gone(),
            false => proc::failed(path, e),
        })
    }

    fn read_once(&mut self) -> Result<(), Missed> {
        let (path, text) = self.text()?;
        self.records = parse(&text, &path)?;
        Ok(())
    }
}

impl Reader<EpollItem> for EpollReader {
    fn backend(&self) -> Backend {
        Backend::Fdinfo
    }

    fn locator(&self) -> &Locator {
        &self.locator
    }

    fn attach(&mut self, locator: Locator) -> Result<(), NotOpened> {
        *self = Self::open(locator)?;
        Ok(())
    }

    fn read(&mut self, how: How, _slot: u64, retry: &Retry) -> Result<Snapshot<'_, EpollItem>> {
        let name = self.locator.name();
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

/// Reads a whole text; `origin` names it in errors.
fn parse(text: &str, origin: &str) -> Result<Vec<EpollItem>> {
    let wrong = |at: usize| {
        let origin = format!("{origin} line {}", at + 1);
        Error::malformed(origin, "not an item of an epoll set")
    };
    let lines = text.lines().enumerate();
    let items = lines.filter(|(_, line)| line.starts_with("tfd:"));
    items
        .map(|(at, line)| item(line).ok_or_else(|| wrong(at)))
        .collect()
}

/// `tfd:        5 events:       19 data:                5  pos:0 ino:40c sdev:e`
fn item(line: &str) -> Option<EpollItem> {
    let mut words = line.split([':', ' ']).filter(|word| !word.is_empty());
    let mut value = |name: &str| match (words.next(), words.next()) {
        (Some(found), value) if found == name => value,
        _ => None,
    };
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let fd = value("tfd")?.parse().ok()?;
    let events = u32::try_from(hex(value("events")?)?).ok()?;
    let data = hex(value("data")?)?;
    let pos = value("pos")?.parse().ok()?;
    let inode = hex(value("ino")?)?;
    let device = u32::try_from(hex(value("sdev")?)?).ok()?;
    if words.next().is_some() {
        return None;
    }
    let file = FileIdentity::of_unknown_kind(inode, device, pos);
    Some(EpollItem::new(fd, events, data, file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::FileKind;
    use proptest::prelude::*;

    const TEXT: &str = "pos:\t0\nflags:\t02000002\nmnt_id:\t16\nino:\t1036\n\
        tfd:       12 events: c0000019 data: ffffffffffffffff  pos:7 ino:40c sdev:800001\n\
        tfd:        5 events:       19 data:                5  pos:-1 ino:0 sdev:e\n";

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

    proptest! {
        #[test]
        fn hostile_lines_never_panic(text in "(tfd:[ -~]{0,80}\n){0,5}") {
            let _ = parse(&text, "a text");
        }
    }
}
