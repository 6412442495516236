//! What the tests compare with: what was registered, and what /proc says, read
//! by code that is not the crate's.

use std::collections::BTreeSet;
use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

use uring_bpf_iter::{
    Backend, BufFields, Consistency, Direction, Error, Options, RegisteredBufs, Result, Ring,
    RingFinder, Snapshot, UringBufIter,
};
use uring_testkit::{fdinfo, page_size, Registered};

/// For a locked read. On a busy machine an emulated kernel was seen to take 14 s until
/// its tracepoint was there.
pub(crate) const LOCKED: Duration = Duration::from_secs(60);

/// A way to read a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Native,
    TaskFile,
    Locked,
    Fdinfo,
}

impl Way {
    /// Those that this kernel has.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [Self::Native, Self::TaskFile, Self::Locked, Self::Fdinfo]
            .into_iter()
            .filter(|way| match way {
                Self::Native => has_native(),
                Self::Locked => no_locked_reads().is_none(),
                Self::TaskFile | Self::Fdinfo => true,
            })
    }

    pub(crate) fn backend(self) -> Backend {
        match self {
            Self::Native => Backend::Native,
            Self::TaskFile | Self::Locked => Backend::TaskFile,
            Self::Fdinfo => Backend::Fdinfo,
        }
    }

    pub(crate) fn options(self) -> Options {
        UringBufIter::options().backend(self.backend())
    }

    pub(crate) fn snapshot(self, iter: &mut UringBufIter) -> Result<Snapshot<'_>> {
        match self {
            Self::Native | Self::TaskFile | Self::Fdinfo => iter.snapshot(),
            Self::Locked => iter.snapshot_locked(LOCKED),
        }
    }

    pub(crate) fn consistency(self, slots: usize) -> Consistency {
        match self {
            // It prints the title of an empty list without the lock.
            Self::Fdinfo if slots == 0 && kernel() < (6, 18) => Consistency::Raw,
            Self::TaskFile => Consistency::Verified,
            Self::Native | Self::Locked | Self::Fdinfo => Consistency::Locked,
        }
    }
}

/// True on a kernel with native iterators, by the name of a symbol that only
/// its iterator has. A machine that is to have them says so, and fails then.
pub(crate) fn has_native() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let symbols = fs::read_to_string("/proc/kallsyms").expect("/proc/kallsyms");
        let has = symbols
            .lines()
            .any(|line| line.split(' ').nth(2) == Some("bpf_iter_io_uring_buf"));
        let wanted = std::env::var_os("URING_SUITE_NATIVE").is_some();
        assert!(has || !wanted, "this kernel has no native iterators");
        has
    })
}

/// Compares all that a way of reading gives with what was registered in base
/// pages, and with what the kernel prints.
#[track_caller]
pub(crate) fn assert_ring(pid: u32, fd: i32, expected: &[Option<Registered>]) {
    assert_eq!(listed(pid, fd), ranges(expected), "kernel's own text");
    for way in Way::all() {
        let mut iter = attach(way, pid, fd);
        assert_reads(way, &mut iter, expected);
    }
}

#[track_caller]
pub(crate) fn attach(way: Way, pid: u32, fd: i32) -> UringBufIter {
    way.options()
        .attach_pid(pid, fd)
        .unwrap_or_else(|e| panic!("attach {way:?} to {pid}/{fd}: {e}"))
}

#[track_caller]
pub(crate) fn assert_reads(way: Way, iter: &mut UringBufIter, expected: &[Option<Registered>]) {
    let bufs = way
        .snapshot(iter)
        .unwrap_or_else(|e| panic!("{way:?}: {e}"));
    assert_table(way, &bufs, expected);
}

/// Every field, for buffers in base pages that no other table shares.
#[track_caller]
pub(crate) fn assert_table(way: Way, bufs: &Snapshot<'_>, expected: &[Option<Registered>]) {
    assert_places(way, bufs, expected);
    for (i, buf) in bufs.iter().enumerate().filter(|(_, b)| !b.is_empty_slot()) {
        let context = format!("{way:?}, slot {i}: {buf:?}");
        let pages = u32::try_from(buf.nr_pages()).unwrap();
        if way == Way::Fdinfo {
            continue;
        }
        assert_eq!(buf.nr_bvecs(), Some(pages), "{context}");
        assert_eq!(buf.bvec_shift(), Some(page_shift()), "{context}");
        assert_eq!(buf.refs(), Some(1), "{context}");
        if kernel() < (6, 19) {
            assert_eq!(buf.acct_pages(), Some(pages), "{context}");
        }
    }
}

/// What holds for any kind of memory: place, tag, and what is known at all.
#[track_caller]
pub(crate) fn assert_places(way: Way, bufs: &Snapshot<'_>, expected: &[Option<Registered>]) {
    assert_eq!(bufs.backend(), way.backend());
    assert_eq!(
        bufs.consistency(),
        way.consistency(expected.len()),
        "{way:?}"
    );
    assert!(bufs.attempts() >= 1);
    assert_eq!(bufs.len(), expected.len(), "{way:?}: slots");
    let filled = expected.iter().flatten().count();
    assert_eq!(bufs.filled().count(), filled, "{way:?}: filled slots");
    for (i, (buf, want)) in bufs.iter().zip(expected).enumerate() {
        let context = format!("{way:?}, slot {i}: {buf:?}, registered: {want:?}");
        assert_eq!(buf.index(), i as u64, "{context}");
        assert_eq!(buf.is_empty_slot(), want.is_none(), "{context}");
        assert_eq!(buf.page_size(), page_size() as u64, "{context}");
        let Some(want) = want else {
            assert_eq!((buf.addr(), buf.len()), (0, 0), "{context}");
            assert_eq!(buf.pinned_bytes(), 0, "{context}");
            continue;
        };
        assert_eq!((buf.addr(), buf.len()), (want.addr, want.len), "{context}");
        assert_eq!(buf.nr_pages(), pages(want), "{context}");
        assert_eq!(buf.pinned_pages(), pages(want), "{context}");
        if way == Way::Fdinfo {
            assert_eq!(buf.tag(), None, "{context}");
            assert_eq!(buf.nr_bvecs(), None, "{context}");
            assert_eq!(buf.bvec_shift(), None, "{context}");
            assert_eq!(buf.acct_pages(), None, "{context}");
            assert_eq!(buf.refs(), None, "{context}");
            assert_eq!(buf.is_kernel(), None, "{context}");
            assert_eq!(buf.direction(), None, "{context}");
        } else {
            assert_eq!(buf.tag(), Some(want.tag), "{context}");
            assert_eq!(buf.is_kernel(), Some(false), "{context}");
            let both = Direction::DEST | Direction::SOURCE;
            assert_eq!(buf.direction(), Some(both), "{context}");
        }
    }
    let known = match way {
        Way::Fdinfo => BufFields::empty(),
        Way::Native | Way::TaskFile | Way::Locked => BufFields::all(),
    };
    assert_eq!(bufs.known_fields(), known, "{way:?}");
    assert_eq!(bufs.pinned_bytes(), pinned_bytes(expected), "{way:?}");
}

/// Base pages that a range touches, by counting.
pub(crate) fn pages(buf: &Registered) -> u64 {
    let page = page_size() as u64;
    (buf.addr + buf.len - 1) / page - buf.addr / page + 1
}

pub(crate) fn pinned_bytes(bufs: &[Option<Registered>]) -> u64 {
    bufs.iter().flatten().map(pages).sum::<u64>() * page_size() as u64
}

pub(crate) fn page_shift() -> u8 {
    page_size().trailing_zeros() as u8
}

pub(crate) fn ranges(bufs: &[Option<Registered>]) -> fdinfo::UserBufs {
    bufs.iter()
        .map(|buf| buf.map(|buf| (buf.addr, buf.len)))
        .collect()
}

/// The kernel's text, as soon as the lock was free for it.
#[track_caller]
pub(crate) fn listed(pid: u32, fd: i32) -> fdinfo::UserBufs {
    for _ in 0..1000 {
        match fdinfo::user_bufs(pid, fd) {
            Ok(Some(bufs)) => return bufs,
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            Err(e) => panic!("fdinfo {pid}/{fd}: {e}"),
        }
    }
    panic!("fdinfo {pid}/{fd}: uring_lock was taken for two seconds");
}

/// A line of /proc/PID/status, without its name.
pub(crate) fn status(pid: u32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// `VmPin`, which the kernel keeps for the process: what its rings account.
pub(crate) fn vm_pin_bytes(pid: u32) -> u64 {
    let text = status(pid, "VmPin");
    let kib = text.strip_suffix(" kB").unwrap_or(&text);
    kib.trim().parse::<u64>().expect("VmPin") * 1024
}

/// Processes with this parent, by /proc.
pub(crate) fn children_of(parent: u32) -> BTreeSet<u32> {
    let parent = parent.to_string();
    let all = fs::read_dir("/proc").expect("/proc").flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| status(*pid, "PPid") == parent)
        .collect()
}

/// Threads of a process with this name.
pub(crate) fn threads_named(pid: u32, name: &str) -> BTreeSet<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("tasks");
    tasks
        .flatten()
        .filter(|task| {
            fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
        })
        .filter_map(|task| task.file_name().to_str()?.parse().ok())
        .collect()
}

/// The kernel's version.
pub(crate) fn kernel() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").expect("osrelease");
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    (next(), next())
}

#[track_caller]
pub(crate) fn finder(backend: impl Into<Option<Backend>>) -> RingFinder {
    RingFinder::with_backend(backend).unwrap_or_else(|e| panic!("finder: {e}"))
}

/// The rings of a process.
#[track_caller]
pub(crate) fn rings_of(backend: Backend, pid: u32) -> Vec<Ring> {
    finder(backend)
        .find_in(pid)
        .unwrap_or_else(|e| panic!("find in {pid}: {e}"))
        .rings
}

/// The ring with this inode; it must be there once.
#[track_caller]
pub(crate) fn by_inode(rings: &[Ring], inode: u64) -> &Ring {
    let found: Vec<&Ring> = rings.iter().filter(|ring| ring.inode == inode).collect();
    match found[..] {
        [one] => one,
        _ => panic!("ring {inode} was found {} times", found.len()),
    }
}

/// Why reads under uring_lock are not to be tested, if so.
pub(crate) fn no_locked_reads() -> Option<&'static str> {
    if kernel() < (6, 13) {
        return Some("reads under uring_lock need Linux 6.13");
    }
    // A child that shares the memory of an instrumented process can die with
    // the sanitizer's own locks held, as it learns nothing of the new stack.
    std::env::var_os("URING_SUITE_NO_LOCKED")
        .map(|_| "the observer shares memory, which AddressSanitizer does not follow")
}

/// How looks end at a ring that was closed. A child of another trial, between
/// fork(2) and execve(2), has every descriptor: then it lives a moment longer.
#[track_caller]
pub(crate) fn error_at_last(mut look: impl FnMut() -> Result<()>) -> Error {
    for _ in 0..1000 {
        if let Err(error) = look() {
            return error;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the ring is still there after ten seconds");
}
