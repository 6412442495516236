//! [`EpollSet`]: an epoll set with known items.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::files::KnownFile;
use crate::sys;

/// An item as the kernel must show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpollItem {
    /// The number under which the file was added, whatever it means by now.
    pub fd: RawFd,
    /// What it waits for: as given, and EPOLLERR and EPOLLHUP, which the kernel
    /// adds.
    pub events: u32,
    /// The user's number.
    pub data: u64,
    /// The file.
    pub file: KnownFile,
}

/// An epoll set, the files in it, and the oracle of what it holds. The kernel's
/// order is by the address of a file: the oracle's is that of adding.
#[derive(Debug)]
pub struct EpollSet {
    set: OwnedFd,
    items: Vec<EpollItem>,
    /// Keeps files in the set whose number is closed or means another.
    kept: Vec<OwnedFd>,
}

impl EpollSet {
    /// An empty set.
    ///
    /// # Errors
    /// EMFILE.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            set: sys::epoll_create()?,
            items: Vec::new(),
            kept: Vec::new(),
        })
    }

    /// The oracle, in order of adding.
    pub fn expected(&self) -> &[EpollItem] {
        &self.items
    }

    /// Adds a file. It leaves the set by itself when its last descriptor is
    /// closed, which the oracle does not notice: see [`keep`](Self::keep).
    ///
    /// # Errors
    /// EEXIST, EPERM for a file that cannot be waited for, ELOOP.
    pub fn add(&mut self, fd: impl AsFd, events: u32, data: u64) -> io::Result<()> {
        let fd = fd.as_fd();
        let file = KnownFile::of(fd)?;
        self.ctl(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), events, data)?;
        self.items.push(EpollItem {
            fd: fd.as_raw_fd(),
            events: shown(events),
            data,
            file,
        });
        Ok(())
    }

    /// Adds a file and keeps it open as long as the set.
    ///
    /// # Errors
    /// Those of [`add`](Self::add).
    pub fn keep(&mut self, fd: OwnedFd, events: u32, data: u64) -> io::Result<()> {
        self.add(&fd, events, data)?;
        self.kept.push(fd);
        Ok(())
    }

    /// Adds all files under one fd number, which ends as the last of them: each
    /// in turn takes the number from the one before, which a duplicate keeps
    /// open. Their data counts on from `data`. Returns the number.
    ///
    /// # Errors
    /// Those of [`add`](Self::add); `InvalidInput` without a file.
    pub fn keep_under_one_number(
        &mut self,
        files: impl IntoIterator<Item = OwnedFd>,
        events: u32,
        data: u64,
    ) -> io::Result<RawFd> {
        let mut number: Option<OwnedFd> = None;
        for (file, data) in files.into_iter().zip(data..) {
            match &number {
                None => number = Some(file.try_clone()?),
                Some(number) => sys::replace(number, file.as_fd())?,
            }
            self.kept.push(file);
            self.add(number.as_ref().expect("just made"), events, data)?;
        }
        let number = number.ok_or_else(|| crate::buf::invalid("no file"))?;
        let raw = number.as_raw_fd();
        self.kept.push(number);
        Ok(raw)
    }

    /// Changes events and data of an item that its number still reaches.
    ///
    /// # Errors
    /// ENOENT.
    pub fn modify(&mut self, fd: impl AsFd, events: u32, data: u64) -> io::Result<()> {
        let at = self.find(&fd)?;
        let fd = fd.as_fd().as_raw_fd();
        self.ctl(libc::EPOLL_CTL_MOD, fd, events, data)?;
        let item = &mut self.items[at];
        (item.events, item.data) = (shown(events), data);
        Ok(())
    }

    /// Takes out an item that its number still reaches.
    ///
    /// # Errors
    /// ENOENT.
    pub fn remove(&mut self, fd: impl AsFd) -> io::Result<()> {
        let at = self.find(&fd)?;
        self.ctl(libc::EPOLL_CTL_DEL, fd.as_fd().as_raw_fd(), 0, 0)?;
        self.items.remove(at);
        Ok(())
    }

    /// Which item this descriptor reaches: the same number and the same file.
    fn find(&self, fd: &impl AsFd) -> io::Result<usize> {
        let (number, file) = (fd.as_fd().as_raw_fd(), KnownFile::of(fd)?);
        let same = |item: &EpollItem| item.fd == number && item.file.inode == file.inode;
        // The latest, where files share an inode.
        let at = self.items.iter().rposition(same);
        at.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }

    fn ctl(&self, op: i32, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
        sys::epoll_ctl(self.set.as_fd(), op, fd, events, data)
    }
}

impl AsFd for EpollSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.set.as_fd()
    }
}

fn shown(events: u32) -> u32 {
    events | (libc::EPOLLERR | libc::EPOLLHUP) as u32
}

/// An item as /proc/PID/fdinfo/FD of an epoll set prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EpollLine {
    /// `tfd`.
    pub fd: RawFd,
    /// `events`.
    pub events: u32,
    /// `data`.
    pub data: u64,
    /// `pos`: the position of the file.
    pub pos: u64,
    /// `ino`.
    pub inode: u64,
    /// `sdev`: major and minor.
    pub device: (u32, u32),
}

/// What the kernel prints about an epoll set, in its own order.
///
/// # Errors
/// ENOENT, EACCES from procfs; `InvalidData` for text that is not understood.
pub fn epoll_lines(pid: u32, fd: RawFd) -> io::Result<Vec<EpollLine>> {
    let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}"))?;
    let items = text.lines().filter(|line| line.starts_with("tfd:"));
    items
        .map(|text| line(text).ok_or_else(|| bad(text)))
        .collect()
}

fn bad(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("fdinfo: {line:?}"))
}

/// `tfd:        5 events:       19 data:                5  pos:0 ino:1032 sdev:e`
fn line(text: &str) -> Option<EpollLine> {
    let field = |key: &str| text.split_once(key)?.1.split_whitespace().next();
    let hex = |key: &str| u64::from_str_radix(field(key)?, 16).ok();
    // new_encode_dev() is not applied: the kernel's own numbers.
    let device = hex("sdev:")?;
    Some(EpollLine {
        fd: field("tfd:")?.parse().ok()?,
        events: hex("events:")? as u32,
        data: hex("data:")?,
        pos: field("pos:")?.parse().ok()?,
        inode: hex("ino:")?,
        device: ((device >> 20) as u32, (device & 0xf_ffff) as u32),
    })
}

#[cfg(test)]
mod tests {
    use super::{line, EpollLine};

    #[test]
    fn a_line() {
        let text =
            "tfd:        5 events:       19 data:         ffffffff  pos:7 ino:40c sdev:800001";
        let want = EpollLine {
            fd: 5,
            events: 0x19,
            data: 0xffff_ffff,
            pos: 7,
            inode: 0x40c,
            device: (8, 1),
        };
        assert_eq!(line(text), Some(want));
        assert_eq!(line("tfd: x"), None);
    }
}
