//! One item of an epoll set.

use std::fmt;

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::names;
use crate::record::{Check, FileIdentity};

bitflags! {
    /// The events that an item waits for, and how: `EPOLL*` of epoll_ctl(2). A bit
    /// without a name here is kept. [`Display`](std::fmt::Display) prints the
    /// names, joined by `|`, and a hexadecimal number for the rest.
    ///
    /// The kernel adds [`ERR`](Self::ERR) and [`HUP`](Self::HUP) to every
    /// item. An item with [`ONESHOT`](Self::ONESHOT) that has fired has no
    /// other event left until it is armed again.
    ///
    /// Source: include/uapi/linux/eventpoll.h.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct EpollEvents: u32 {
        /// Data to read.
        const IN = 1 << 0;
        /// Urgent data, or another exceptional condition.
        const PRI = 1 << 1;
        /// Room to write.
        const OUT = 1 << 2;
        /// An error.
        const ERR = 1 << 3;
        /// A hang-up of both directions.
        const HUP = 1 << 4;
        /// Not a valid file; never set by the kernel.
        const NVAL = 1 << 5;
        /// Normal data to read.
        const RDNORM = 1 << 6;
        /// Priority data to read.
        const RDBAND = 1 << 7;
        /// Room to write normal data.
        const WRNORM = 1 << 8;
        /// Room to write priority data.
        const WRBAND = 1 << 9;
        /// Not used by the kernel.
        const MSG = 1 << 10;
        /// The peer has closed its writing half.
        const RDHUP = 1 << 13;
        /// Urgent mode for io_uring (`EPOLL_URING_WAKE`, 6.0).
        const URING_WAKE = 1 << 27;
        /// Of all tasks that wait for the same file, one is woken (4.5).
        const EXCLUSIVE = 1 << 28;
        /// The system does not suspend while an event is at hand (3.5).
        const WAKEUP = 1 << 29;
        /// One event, then the item rests until it is armed again.
        const ONESHOT = 1 << 30;
        /// Edge-triggered.
        const ET = 1 << 31;
    }
}

impl fmt::Display for EpollEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        names::write(self, f)
    }
}

/// One item of an epoll set: 64 bytes, written in place by the kernel side and
/// lent without a copy.
///
/// Source: `struct epitem`, fs/eventpoll.c.
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct EpollItem {
    data: u64,
    fd: i32,
    events: u32,
    file: FileIdentity,
}

const _: () = {
    assert!(size_of::<EpollItem>() == 64 && align_of::<EpollItem>() == 8);
    assert!(std::mem::offset_of!(EpollItem, fd) == 8);
    assert!(std::mem::offset_of!(EpollItem, events) == 12);
    assert!(std::mem::offset_of!(EpollItem, file) == 16);
};

impl EpollItem {
    /// The number under which the file was added. By now it may be closed, or
    /// another file: several items of one set may have the same number, and
    /// only [`EpollItem::file`] tells them apart.
    pub fn fd(&self) -> i32 {
        self.fd
    }

    /// The events that it waits for, and how.
    pub fn events(&self) -> EpollEvents {
        EpollEvents::from_bits_retain(self.events)
    }

    /// The number that the program gave with it (`epoll_data_t`): any value,
    /// often the descriptor or an address in the program.
    pub fn data(&self) -> u64 {
        self.data
    }

    /// The file that is waited for.
    pub fn file(&self) -> &FileIdentity {
        &self.file
    }

    pub(crate) fn new(fd: i32, events: u32, data: u64, file: FileIdentity) -> Self {
        Self {
            data,
            fd,
            events,
            file,
        }
    }
}

impl Check for EpollItem {
    fn check(&self, at: usize, _page_shift: u8) -> Result<(), String> {
        if self.file.is_none() {
            return Err(format!("record {at} has no file"));
        }
        self.file
            .check()
            .map_err(|what| format!("record {at}: {what}"))
    }
}

impl fmt::Debug for EpollItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpollItem")
            .field("fd", &self.fd)
            .field("events", &self.events())
            .field("data", &format_args!("{:#x}", self.data))
            .field("file", &self.file)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bits_without_a_name_are_kept() {
        let all = EpollEvents::from_bits_retain(u32::MAX);
        assert_eq!(all.bits(), u32::MAX);
        assert_ne!(EpollEvents::all().bits(), u32::MAX);
    }

    proptest! {
        /// Any 64 bytes are a record that can be looked at.
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::array::uniform32(any::<u8>()),
                                     more in proptest::array::uniform32(any::<u8>())) {
            let all = [&bytes[..], &more[..]].concat();
            let item = EpollItem::read_from_bytes(&all).unwrap();
            let _ = (item.fd(), item.data(), item.events(), item.file().kind());
            let _ = (item.file().inner_path(), item.file().open_flags().to_string());
            let _ = format!("{item:?}");
            let _ = item.check(0, 12);
        }
    }
}
