//! `Serialize` for rings, records and what they hold, with the keys that
//! README.md lists. Values that are not known are `null`.

use serde::ser::{SerializeMap, Serializer};
use serde::Serialize;

use crate::choice::Backend;
use crate::epoll::{EpollSet, EpollSurvey};
use crate::iter::NumberNow;
use crate::record::{
    BufFields, Consistency, Direction, EpollEvents, EpollItem, FileFlags, FileIdentity, FileKind,
    RegisteredBuf, RegisteredFile, Segment,
};
use crate::ring::{
    Charged, Holder, Pinned, Queue, Ring, SetupFlags, SqPoll, Survey, Unseen, UnseenReason, Via,
};

/// A type that is serialised as its `Display` prints it.
macro_rules! as_text {
    ($($type:ty)*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

as_text! { Backend Consistency Direction FileKind NumberNow UnseenReason }

/// Flags that are serialised as their number.
macro_rules! as_bits {
    ($($type:ty)*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.bits().serialize(serializer)
            }
        }
    )*};
}

as_bits! { BufFields EpollEvents SetupFlags }

/// A type that is serialised as a map of these entries.
macro_rules! as_map {
    ($type:ty, |$this:ident, $map:ident| $body:block) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let $this = self;
                let mut $map = serializer.serialize_map(None)?;
                $body
                $map.end()
            }
        }
    };
}

as_map!(Ring, |ring, map| {
    map.serialize_entry("ring", &ring.inode)?;
    map.serialize_entry("holders", ring.holders())?;
    map.serialize_entry("creator_uid", &ring.creator_uid)?;
    map.serialize_entry("flags", &ring.flags)?;
    map.serialize_entry("flag_names", &ring.flags.map(|flags| names(&flags)))?;
    map.serialize_entry("sq_entries", &ring.sq.map(|sq| sq.entries))?;
    map.serialize_entry("sq_head", &ring.sq.map(|sq| sq.head))?;
    map.serialize_entry("sq_tail", &ring.sq.map(|sq| sq.tail))?;
    map.serialize_entry("cq_entries", &ring.cq.map(|cq| cq.entries))?;
    map.serialize_entry("cq_head", &ring.cq.map(|cq| cq.head))?;
    map.serialize_entry("cq_tail", &ring.cq.map(|cq| cq.tail))?;
    map.serialize_entry("sqpoll", &ring.sqpoll)?;
    map.serialize_entry("nr_slots", &ring.nr_bufs)?;
    map.serialize_entry("nr_bufs", &ring.pinned.map(|sums| sums.buffers))?;
    map.serialize_entry("nr_files", &ring.nr_files)?;
    map.serialize_entry("nr_file_slots", &ring.nr_files)?;
    map.serialize_entry("nr_files_filled", &ring.nr_files_filled)?;
    map.serialize_entry("pinned_bytes", &ring.pinned.map(|sums| sums.bytes))?;
    map.serialize_entry("acct_bytes", &ring.pinned.and_then(|sums| sums.accounted))?;
    let (uid, bytes) = match ring.charged {
        Some(Charged::User { uid, locked_bytes }) => (Some(uid), Some(locked_bytes)),
        Some(Charged::Exempt) | None => (None, None),
    };
    map.serialize_entry("charged_uid", &uid)?;
    map.serialize_entry("user_locked_bytes", &bytes)?;
    map.serialize_entry("consistency", &ring.pinned.map(|sums| sums.consistency))?;
});

as_map!(Holder, |holder, map| {
    map.serialize_entry("pid", &holder.pid)?;
    map.serialize_entry("tid", &holder.tid)?;
    map.serialize_entry("fd", &holder.fd())?;
    map.serialize_entry("via", &holder.via)?;
    let index = match holder.via {
        Via::Registered(index) => Some(index),
        Via::Descriptor(_) | Via::Mapping => None,
    };
    map.serialize_entry("registered_index", &index)?;
    map.serialize_entry("uid", &holder.uid)?;
    map.serialize_entry("name", &holder.name)?;
    map.serialize_entry("thread_name", &holder.thread_name)?;
    for (key, bytes) in [
        ("name_bytes", &holder.name_bytes),
        ("thread_name_bytes", &holder.thread_name_bytes),
    ] {
        if let Some(bytes) = bytes {
            map.serialize_entry(key, &hexadecimal(bytes))?;
        }
    }
});

/// Bytes that are not text.
fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Without the number, which has its own key in [`Holder`].
impl Serialize for Via {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Descriptor(_) => "descriptor",
            Self::Registered(_) => "registered",
            Self::Mapping => "mapping",
        })
    }
}

as_map!(SqPoll, |sqpoll, map| {
    map.serialize_entry("tid", &sqpoll.tid)?;
    map.serialize_entry("cpu", &sqpoll.cpu)?;
});

as_map!(Queue, |queue, map| {
    map.serialize_entry("entries", &queue.entries)?;
    map.serialize_entry("head", &queue.head)?;
    map.serialize_entry("tail", &queue.tail)?;
});

as_map!(Pinned, |sums, map| {
    map.serialize_entry("consistency", &sums.consistency)?;
    map.serialize_entry("nr_bufs", &sums.buffers)?;
    map.serialize_entry("pinned_bytes", &sums.bytes)?;
    map.serialize_entry("acct_bytes", &sums.accounted)?;
});

/// Both values are `null` where no user is charged.
impl Serialize for Charged {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (uid, bytes) = match self {
            Self::User { uid, locked_bytes } => (Some(uid), Some(locked_bytes)),
            Self::Exempt => (None, None),
        };
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("charged_uid", &uid)?;
        map.serialize_entry("user_locked_bytes", &bytes)?;
        map.end()
    }
}

as_map!(Survey, |survey, map| {
    map.serialize_entry("rings", &survey.rings)?;
    map.serialize_entry("unseen", &survey.unseen)?;
});

as_map!(EpollSet, |set, map| {
    map.serialize_entry("holders", set.holders())?;
});

as_map!(EpollSurvey, |survey, map| {
    map.serialize_entry("sets", &survey.sets)?;
    map.serialize_entry("unseen", &survey.unseen)?;
});

as_map!(Unseen, |unseen, map| {
    map.serialize_entry("pid", &unseen.pid)?;
    map.serialize_entry("why", &unseen.why)?;
});

as_map!(RegisteredBuf, |buf, map| {
    map.serialize_entry("index", &buf.index())?;
    map.serialize_entry("empty", &buf.is_empty_slot())?;
    map.serialize_entry("addr", &buf.addr())?;
    map.serialize_entry("len", &buf.len())?;
    map.serialize_entry("tag", &buf.tag())?;
    map.serialize_entry("nr_pages", &buf.nr_pages())?;
    map.serialize_entry("pinned_pages", &buf.pinned_pages())?;
    map.serialize_entry("acct_pages", &buf.acct_pages())?;
    map.serialize_entry("nr_bvecs", &buf.nr_bvecs())?;
    map.serialize_entry("bvec_shift", &buf.bvec_shift())?;
    map.serialize_entry("refs", &buf.refs())?;
    map.serialize_entry("kernel", &buf.is_kernel())?;
    map.serialize_entry("direction", &buf.direction())?;
});

as_map!(Segment, |segment, map| {
    map.serialize_entry("pfn", &segment.pfn())?;
    map.serialize_entry("offset", &segment.offset())?;
    map.serialize_entry("len", &segment.len())?;
});

as_map!(RegisteredFile, |slot, map| {
    map.serialize_entry("index", &slot.index())?;
    map.serialize_entry("empty", &slot.is_empty_slot())?;
    map.serialize_entry("tag", &slot.tag())?;
    file(slot.file(), &mut map)?;
});

as_map!(EpollItem, |item, map| {
    map.serialize_entry("fd", &item.fd())?;
    map.serialize_entry("events", &item.events())?;
    map.serialize_entry("event_names", &names(&item.events()))?;
    map.serialize_entry("data", &item.data())?;
    file(Some(item.file()), &mut map)?;
});

as_map!(FileIdentity, |identity, map| {
    file(Some(identity), &mut map)?;
});

/// The entries of a file: all of them `null` for an empty slot.
fn file<M: SerializeMap>(file: Option<&FileIdentity>, map: &mut M) -> Result<(), M::Error> {
    let known = file.filter(|file| file.kind() != FileKind::Unknown);
    let number = |device: (u32, u32)| format!("{}:{}", device.0, device.1);
    map.serialize_entry("kind", &file.map(FileIdentity::kind))?;
    map.serialize_entry("anon_kind", &file.and_then(FileIdentity::anon_kind))?;
    map.serialize_entry("inode", &file.map(FileIdentity::inode))?;
    map.serialize_entry("device", &file.map(|file| number(file.device())))?;
    let stat_device = file.and_then(FileIdentity::stat_device);
    map.serialize_entry("stat_device", &stat_device.map(number))?;
    map.serialize_entry("rdev", &file.and_then(FileIdentity::rdev).map(number))?;
    map.serialize_entry("flags", &known.map(FileIdentity::flags))?;
    let names = known.map(|file| open_names(file.open_flags()));
    map.serialize_entry("flag_names", &names)?;
    map.serialize_entry("mode", &known.map(FileIdentity::mode))?;
    map.serialize_entry("position", &file.map(FileIdentity::position))?;
    map.serialize_entry("size", &file.and_then(FileIdentity::size))?;
    map.serialize_entry("nlink", &file.and_then(FileIdentity::nlink))?;
    map.serialize_entry("deleted", &file.and_then(FileIdentity::is_deleted))?;
    map.serialize_entry("eventfd_id", &file.and_then(FileIdentity::eventfd_id))
}

/// The names of the flags of a file, with the access mode.
fn open_names(flags: FileFlags) -> Vec<String> {
    let read_only = flags.is_read_only().then(|| "O_RDONLY".to_owned());
    read_only.into_iter().chain(names(&flags)).collect()
}

/// The names of the bits that are set, and a number for those without a name.
fn names<F: bitflags::Flags<Bits = u32>>(flags: &F) -> Vec<String> {
    let mut names = flags.iter_names();
    let mut all: Vec<String> = names.by_ref().map(|(name, _)| name.into()).collect();
    let rest = names.remaining();
    if !rest.is_empty() {
        all.push(format!("{:#x}", rest.bits()));
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{json, to_value};

    use super::*;
    use crate::ring::Names;

    #[test]
    fn a_ring_of_which_little_is_known_has_every_key() {
        let names = Names {
            process: b"a\x07b".into(),
            thread: Some(b"\xff".into()),
        };
        let holder = Holder::new((7, 8), Via::Registered(3), 0, names);
        let ring = Ring {
            flags: Some(SetupFlags::SQPOLL | SetupFlags::from_bits_retain(1 << 30)),
            charged: Some(Charged::User {
                uid: 5,
                locked_bytes: 4096,
            }),
            ..Ring::unknown(42)
        };
        let ring = to_value(ring.held_by(vec![holder])).unwrap();
        let wanted = json!({
            "ring": 42,
            "holders": [{
                "pid": 7, "tid": 8, "fd": null, "via": "registered", "registered_index": 3,
                "uid": 0, "name": "a\u{7}b",
                "thread_name": "\u{fffd}", "thread_name_bytes": "ff",
            }],
            "creator_uid": null,
            "flags": 0x4000_0002u32, "flag_names": ["SQPOLL", "0x40000000"],
            "sq_entries": null, "sq_head": null, "sq_tail": null,
            "cq_entries": null, "cq_head": null, "cq_tail": null,
            "sqpoll": null,
            "nr_slots": null, "nr_bufs": null, "nr_files": null,
            "nr_file_slots": null, "nr_files_filled": null,
            "pinned_bytes": null, "acct_bytes": null,
            "charged_uid": 5, "user_locked_bytes": 4096,
            "consistency": null,
        });
        assert_eq!(ring, wanted);
    }

    #[test]
    fn records_have_the_keys_that_are_promised() {
        let buf = to_value(RegisteredBuf::from_range(3, 0x1fff, 2, 12)).unwrap();
        let wanted = json!({
            "index": 3, "empty": false, "addr": 0x1fff, "len": 2, "tag": null,
            "nr_pages": 2, "pinned_pages": 2, "acct_pages": null, "nr_bvecs": null,
            "bvec_shift": null, "refs": null, "kernel": null, "direction": null,
        });
        assert_eq!(buf, wanted);
        let direction = to_value(Direction::DEST | Direction::SOURCE).unwrap();
        assert_eq!(direction, json!("dest|source"));
        let file = FileIdentity::of_unknown_kind(9, 8 << 20 | 1, -1);
        let item = to_value(EpollItem::new(4, 1 << 31 | 1, u64::MAX, file)).unwrap();
        let wanted = json!({
            "fd": 4, "events": 0x8000_0001u32, "event_names": ["IN", "ET"], "data": u64::MAX,
            "kind": "unknown", "anon_kind": null, "inode": 9, "device": "8:1",
            "stat_device": null, "rdev": null, "flags": null, "flag_names": null,
            "mode": null, "position": -1, "size": null, "nlink": null, "deleted": null,
            "eventfd_id": null,
        });
        assert_eq!(item, wanted);
    }
}
