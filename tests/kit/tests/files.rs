//! Tables of files and epoll sets: the oracle against the kernel's own words.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::process;
use std::time::Duration;

use uring_testkit::{epoll_lines, EpollLine, EpollSet, FileSlot, KnownFile, PipeWitness};
use uring_testkit::{Request, RingBuilder, TestRing};

/// Longer than a child of another test takes from fork(2) to execve(2).
const SOON: Duration = Duration::from_secs(10);

fn ring() -> TestRing {
    RingBuilder::new(8).build().expect("ring")
}

/// Index and file of each filled slot, as fdinfo prints them.
fn listed(ring: &TestRing) -> (usize, Vec<(u32, String)>) {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", ring.raw_fd())).expect("fdinfo");
    let mut lines = text
        .lines()
        .skip_while(|line| !line.starts_with("UserFiles:"));
    let count = lines.next().expect("UserFiles")["UserFiles:".len()..].trim();
    let slot = |line: &str| {
        let (index, name) = line.split_once(": ")?;
        Some((index.trim().parse().ok()?, name.trim().to_owned()))
    };
    let slots = lines.take_while(|line| !line.starts_with("UserBufs"));
    (
        count.parse().expect("a number"),
        slots.filter_map(slot).collect(),
    )
}

fn check(ring: &TestRing) {
    let (count, slots) = listed(ring);
    assert_eq!(count, ring.nr_files());
    let filled = ring.expected_files().iter().enumerate();
    let filled: Vec<_> = filled
        .filter_map(|(i, file)| Some((i as u32, file.as_ref()?)))
        .collect();
    // Before 6.13 fdinfo prints empty slots too, as "<none>".
    let slots: Vec<_> = slots
        .into_iter()
        .filter(|(_, name)| name != "<none>")
        .collect();
    assert_eq!(slots.len(), filled.len(), "{slots:?}");
    for ((index, name), (at, known)) in slots.iter().zip(&filled) {
        assert_eq!(index, at);
        // Only files with a path of their own; up to 6.12 its last part.
        if known.name.starts_with('/') {
            assert!(known.name.ends_with(name.as_str()), "{name} {known:?}");
        }
    }
}

#[test]
fn files_with_holes_and_tags_that_come_back() {
    let null = File::open("/dev/null").expect("null");
    let (reader, _writer) = pair();
    let mut ring = ring();
    let slots: [FileSlot<'_>; 4] = [
        Some((null.as_fd(), 11)),
        None,
        Some((reader.as_fd(), 12)),
        Some((null.as_fd(), 0)),
    ];
    ring.register_files_tagged(&slots).expect("register");
    check(&ring);
    let known = ring.expected_files()[0].clone().expect("filled");
    let meta = null.metadata().expect("fstat");
    assert_eq!(
        (known.inode, known.mode, known.tag),
        (meta.ino(), meta.mode(), 11)
    );
    assert_eq!(&*known.name, "/dev/null");

    ring.update_files(1, &[Some((null.as_fd(), 13)), None])
        .expect("update");
    check(&ring);
    assert_eq!(ring.drain(), 1, "the tag of the file that left");
    let beyond = ring.update_files(4, &[None]).unwrap_err();
    assert_eq!(beyond.raw_os_error(), Some(libc::EINVAL));
    ring.update_files(0, &[None, None]).expect("update");
    assert_eq!(ring.drain(), 2, "11 and 13");
    check(&ring);
    ring.unregister_files().expect("unregister");
    check(&ring);
}

fn pair() -> (OwnedFd, OwnedFd) {
    let (a, b) = std::os::unix::net::UnixStream::pair().expect("pair");
    (a.into(), b.into())
}

#[test]
fn direct_descriptors() {
    let mut ring = ring();
    ring.register_files_sparse(8).expect("sparse");
    let before = fs::read_dir("/proc/self/fd").expect("fds").count();
    ring.open_direct("/proc/self/exe", 5).expect("open");
    let after = fs::read_dir("/proc/self/fd").expect("fds").count();
    // Other tests of this program open files too, but not for long.
    if before == after {
        check(&ring);
    }
    let me = fs::metadata("/proc/self/exe").expect("stat");
    let known = ring.expected_files()[5].clone().expect("filled");
    assert_eq!(known.inode, me.ino());
    let missing = ring.open_direct("/no/such/file", 6).unwrap_err();
    assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
    assert_eq!(ring.expected_files()[6], None);
    check(&ring);
    // It is a file that can be read: the start of this program.
    let request = Request::read_slot(5, 4).expect("memory");
    let done = ring.run(request, SOON).expect("a completion");
    assert_eq!(done.bytes, b"\x7fELF");
    let beyond = ring.open_direct("/proc/self/exe", 8).unwrap_err();
    assert_eq!(beyond.raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn as_many_files_as_there_may_be_descriptors() {
    let limit = fs::read_to_string("/proc/self/limits").expect("limits");
    let line = limit
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line
        .expect("limit")
        .split_whitespace()
        .nth(3)
        .expect("soft");
    let nr = soft.parse::<usize>().unwrap_or(usize::MAX).min(1 << 20);
    let null = File::open("/dev/null").expect("null");
    let mut ring = ring();
    ring.register_files(&vec![null.as_fd(); nr])
        .expect("register");
    assert_eq!((ring.nr_files(), ring.expected_files().len()), (nr, nr));
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", ring.raw_fd())).expect("fdinfo");
    assert!(text.contains(&format!("UserFiles:\t{nr}\n")));
    println!("{nr} files");
}

#[test]
fn a_registered_end_is_released_with_the_ring() {
    let mut witness = PipeWitness::new().expect("pipe");
    let mut ring = ring();
    ring.register_files(&[witness.end()]).expect("register");
    let moment = Duration::from_millis(100);
    assert!(!witness.released(moment).expect("poll"), "two have it");
    witness.let_go();
    assert!(!witness.released(moment).expect("poll"), "the ring has it");
    drop(ring);
    assert!(witness.released(SOON).expect("poll"), "nobody has it");
}

/// A file of its own that can be waited for.
fn waitable() -> OwnedFd {
    pair().0
}

/// The kernel's list without its order, which is by address.
#[track_caller]
fn check_set(set: &EpollSet) {
    let mut seen = epoll_lines(process::id(), set.as_fd().as_raw_fd()).expect("fdinfo");
    let line = |item: &uring_testkit::EpollItem| EpollLine {
        fd: item.fd,
        events: item.events,
        data: item.data,
        pos: 0,
        inode: item.file.inode,
        device: item.file.device,
    };
    let mut want: Vec<EpollLine> = set.expected().iter().map(line).collect();
    seen.sort();
    want.sort();
    assert_eq!(seen, want);
}

#[test]
fn epoll_items() {
    let mut set = EpollSet::new().expect("epoll");
    check_set(&set);
    let (a, b) = pair();
    set.add(&a, 1, u64::MAX).expect("add");
    set.add(&b, 4 | 1 << 31, 7).expect("add, edge-triggered");
    check_set(&set);
    set.modify(&a, 5, 1).expect("modify");
    check_set(&set);
    set.remove(&b).expect("remove");
    assert_eq!(set.expected().len(), 1);
    check_set(&set);
    let twice = set.add(&a, 1, 2).unwrap_err();
    assert_eq!(twice.raw_os_error(), Some(libc::EEXIST));
    let file = File::open("/proc/self/exe").expect("open");
    let no_poll = set.add(&file, 1, 2).unwrap_err();
    assert_eq!(no_poll.raw_os_error(), Some(libc::EPERM));
    assert!(set.remove(&b).is_err());
    check_set(&set);
}

#[test]
fn four_files_under_one_number() {
    let mut set = EpollSet::new().expect("epoll");
    set.keep(waitable(), 1, 5).expect("keep");
    let number = set
        .keep_under_one_number((0..4).map(|_| waitable()), 1, 1000)
        .expect("keep");
    check_set(&set);
    let same: Vec<u64> = set
        .expected()
        .iter()
        .filter(|item| item.fd == number)
        .map(|i| i.data)
        .collect();
    assert_eq!(same, [1000, 1001, 1002, 1003]);
}

#[test]
fn a_known_file_is_what_proc_says() {
    let file = File::open("/proc/self/exe").expect("open");
    let known = KnownFile::of(&file).expect("known");
    assert_eq!(
        known.name.as_ref(),
        fs::read_link("/proc/self/exe").unwrap().to_str().unwrap()
    );
    assert_eq!(known.flags & 3, 0, "read-only");
    let text =
        fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).expect("fdinfo");
    let flags = text
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .expect("flags");
    let flags = u32::from_str_radix(flags.trim(), 8).expect("octal");
    assert_eq!(known.flags, flags & !(libc::O_CLOEXEC as u32));
}
