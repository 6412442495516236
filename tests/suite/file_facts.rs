//! What records and `uringctl files` tell of each file, against stat(2), fdinfo and
//! the links in /proc of the descriptors that this process has, or had.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{major, minor, MemfdFlags};
use serde_json::{json, Value};
use uring_bpf_iter::{
    Backend, EpollIter, FileIdentity, RegisteredFile, Result, Snapshot, UringFileIter,
    UringFileReader,
};
use uring_testkit::{
    bpf_map, signalfd, timerfd, userfaultfd_of_nothing, EpollSet, RingBuilder, TestRing,
};

use super::oracle::{finder, has_native, kernel, Way, LOCKED};
use super::results::skip;
use super::tool::records;
use super::{done, inner, run, Outcome};

trials![
    files_of_every_kind_in_a_table,
    files_of_every_kind_in_an_epoll_set,
    eventfds_have_a_number_each,
    names_that_are_gone,
    a_file_that_grows_and_loses_links_does_not_disturb,
    paths_without_a_descriptor,
    a_taken_lock_hides_paths,
    slots_are_counted,
    devices_on_overlayfs,
];

/// A folder of one trial.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("uring-facts-{name}-{}", process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn file(&self, name: impl AsRef<Path>) -> File {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.open(self.0.join(name)).expect("a file")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _best_effort = fs::remove_dir_all(&self.0);
    }
}

/// What stat(2), fdinfo and the link say of a descriptor of this process.
#[derive(Debug, Clone)]
struct Facts {
    link: PathBuf,
    size: u64,
    nlink: u64,
    device: (u32, u32),
    rdev: Option<(u32, u32)>,
    flags: u32,
    eventfd_id: Option<u32>,
}

impl Facts {
    fn of(fd: RawFd) -> Self {
        let link = format!("/proc/self/fd/{fd}");
        let meta = fs::metadata(&link).expect("stat");
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).expect("fdinfo");
        let line = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned())
        };
        let is_device = meta.file_type().is_char_device() || meta.file_type().is_block_device();
        let numbers = |device| (major(device), minor(device));
        let flags = line("flags:").expect("flags");
        Self {
            link: fs::read_link(&link).expect("readlink"),
            size: meta.size(),
            nlink: meta.nlink(),
            device: numbers(meta.dev()),
            rdev: is_device.then(|| numbers(meta.rdev())),
            flags: u32::from_str_radix(&flags, 8).expect("octal") & !(libc::O_CLOEXEC as u32),
            // Linux 5.2.
            eventfd_id: line("eventfd-id:").map(|id| id.parse().expect("a number")),
        }
    }

    /// Of a file without a name in a file system.
    fn anon_kind(&self) -> Option<&str> {
        let link = self.link.to_str()?;
        match link.strip_prefix("anon_inode:") {
            Some(name) => Some(name.trim_matches(['[', ']'])),
            None => link.starts_with("/memfd:").then_some("memfd"),
        }
    }

    fn is_path(&self) -> bool {
        self.link.is_absolute() && self.anon_kind().is_none()
    }

    #[track_caller]
    fn check(&self, file: &FileIdentity, context: &str) {
        let context = format!("{context}: {file:?}, {self:?}");
        assert_eq!(file.size(), Some(self.size), "{context}");
        assert_eq!(file.nlink().map(u64::from), Some(self.nlink), "{context}");
        assert_eq!(file.rdev(), self.rdev, "{context}");
        assert_eq!(file.eventfd_id(), self.eventfd_id, "{context}");
        assert_eq!(file.anon_kind(), self.anon_kind(), "{context}");
        let told = file.stat_device();
        assert!(told.is_none_or(|told| told == self.device), "{context}");
        let flags = file.open_flags();
        assert_eq!(flags.bits(), self.flags, "{context}");
        assert_eq!(
            flags.is_read_only(),
            self.flags & libc::O_ACCMODE as u32 == libc::O_RDONLY as u32,
            "{context}"
        );
        let deleted = self.link.as_os_str().as_bytes().ends_with(b" (deleted)");
        let wanted = self.is_path().then_some(deleted);
        assert_eq!(file.is_deleted(), wanted, "{context}");
        let inner = file.inner_path().map(PathBuf::from);
        let wanted = (!self.link.is_absolute()).then(|| self.link.clone());
        assert_eq!(inner, wanted, "{context}");
    }
}

fn ring() -> TestRing {
    RingBuilder::new(8).build().expect("a ring")
}

/// A file of each kind, as far as this kernel has them.
fn files_of_every_kind(folder: &Folder) -> Vec<OwnedFd> {
    let grown = folder.file("a b\\c");
    grown.set_len(12_345).expect("ftruncate");
    let deleted = folder.file("deleted");
    deleted.set_len(1 << 20).expect("ftruncate");
    fs::remove_file(folder.0.join("deleted")).expect("unlink");
    let removed = folder.0.join("removed");
    fs::create_dir(&removed).expect("mkdir");
    let removed_dir = File::open(&removed).expect("open");
    fs::remove_dir(&removed).expect("rmdir");
    let linked = folder.file("linked");
    fs::hard_link(folder.0.join("linked"), folder.0.join("again")).expect("link");
    let memfd = rustix::fs::memfd_create("a name", MemfdFlags::CLOEXEC).expect("memfd");
    File::from(memfd.try_clone().expect("dup"))
        .set_len(777)
        .expect("ftruncate");
    let (pipe, writer) = rustix::pipe::pipe().expect("pipe");
    let (socket, _peer) = std::os::unix::net::UnixStream::pair().expect("sockets");
    let events = rustix::event::EventfdFlags::NONBLOCK;
    let pidfd = rustix::process::PidfdFlags::empty();
    let append = OpenOptions::new().append(true).open("/dev/null");
    let mut files: Vec<OwnedFd> = vec![
        grown.into(),
        deleted.into(),
        removed_dir.into(),
        linked.into(),
        memfd,
        File::open("/").expect("/").into(),
        append.expect("/dev/null").into(),
        File::open("/proc/self/status").expect("/proc").into(),
        pipe,
        writer,
        socket.into(),
        rustix::event::eventfd(3, events).expect("eventfd"),
        timerfd().expect("timerfd"),
        signalfd().expect("signalfd"),
        rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::NONBLOCK).expect("inotify"),
        rustix::process::pidfd_open(rustix::process::getpid(), pidfd).expect("pidfd"),
        bpf_map().expect("a map"),
        EpollSet::new()
            .expect("epoll")
            .as_fd()
            .try_clone_to_owned()
            .expect("dup"),
    ];
    files.extend(userfaultfd_of_nothing());
    let block = fs::read_dir("/dev").expect("/dev").flatten();
    let is_block = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|t| t.is_block_device());
    let mut devices = block.filter(is_block).map(|entry| File::open(entry.path()));
    files.extend(devices.find_map(|device| device.ok()).map(OwnedFd::from));
    files
}

fn snapshot(way: Way, iter: &mut UringFileIter) -> Result<Snapshot<'_, RegisteredFile>> {
    match way {
        Way::Locked => iter.snapshot_locked(LOCKED),
        _ => iter.snapshot(),
    }
}

/// The files of a ring by each way that knows them.
fn by_every_way(ring: &TestRing, mut check: impl FnMut(Way, &[RegisteredFile])) {
    for way in Way::all().filter(|way| *way != Way::Fdinfo) {
        let options = UringFileIter::options().backend(way.backend());
        let mut iter = options.attach(ring).expect("attach");
        check(way, &snapshot(way, &mut iter).expect("a snapshot"));
    }
}

fn files_of_every_kind_in_a_table() -> Outcome {
    let folder = Folder::new("table");
    let files = files_of_every_kind(&folder);
    let facts: Vec<Facts> = files.iter().map(|fd| Facts::of(fd.as_raw_fd())).collect();
    let mut ring = ring();
    let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    ring.register_files(&borrowed)?;
    by_every_way(&ring, |way, slots| {
        assert_eq!(slots.len(), facts.len());
        for (slot, facts) in slots.iter().zip(&facts) {
            facts.check(slot.file().expect("a file"), &format!("{way:?}"));
        }
    });
    done()
}

fn files_of_every_kind_in_an_epoll_set() -> Outcome {
    let folder = Folder::new("epoll");
    let mut files = files_of_every_kind(&folder);
    files.push(ring().as_fd().try_clone_to_owned()?);
    let mut set = EpollSet::new()?;
    let mut kept = 0;
    for file in &files {
        // Regular files cannot be waited for.
        kept += usize::from(set.add(file.as_fd(), 1, 0).is_ok());
    }
    assert!(kept >= 10, "{kept} files");
    for backend in [Backend::Native, Backend::TaskFile] {
        if backend == Backend::Native && !has_native() {
            continue;
        }
        let mut iter = EpollIter::options().backend(backend).attach(set.as_fd())?;
        let items = iter.snapshot()?;
        assert_eq!(items.len(), kept);
        for item in items.iter() {
            Facts::of(item.fd()).check(item.file(), &format!("{backend}"));
        }
        let kinds = items.iter().map(|item| item.file().anon_kind());
        let kinds: Vec<_> = kinds.flatten().collect();
        for kind in ["io_uring", "eventpoll", "timerfd", "signalfd", "inotify"] {
            assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
        }
    }
    done()
}

/// They share one inode.
fn eventfds_have_a_number_each() -> Outcome {
    let flags = rustix::event::EventfdFlags::empty();
    let counters = [0, 0].map(|count| rustix::event::eventfd(count, flags).expect("eventfd"));
    let mut ring = ring();
    ring.register_files(&counters.each_ref().map(AsFd::as_fd))?;
    by_every_way(&ring, |way, slots| {
        let files: Vec<_> = slots.iter().filter_map(RegisteredFile::file).collect();
        assert_eq!(files[0].inode(), files[1].inode(), "{way:?}");
        let ids: Vec<_> = files.iter().map(|file| file.eventfd_id()).collect();
        let wanted = counters
            .each_ref()
            .map(|fd| Facts::of(fd.as_raw_fd()).eventfd_id);
        assert_eq!(ids, wanted, "{way:?}");
        assert!(ids[0].is_some() && ids[0] != ids[1], "{ids:?}");
    });
    done()
}

/// The records of the files of this process, by the tool.
fn told(ring: &TestRing, more: &str) -> Vec<Value> {
    let args = format!("--pid {} --fd {} {more}", process::id(), ring.raw_fd());
    let mut records = records("files", &args);
    let head = records.remove(0);
    assert_eq!(head["nr_files_filled"], json!(records.len()), "{head}");
    assert_eq!(head["nr_file_slots"], head["nr_files"], "{head}");
    records
}

fn names_that_are_gone() -> Outcome {
    let folder = Folder::new("names");
    let at = |name: &str| folder.0.join(name);
    let open = |name: &str| folder.file(name);
    let files = [
        open("x (deleted)"),
        open("y (deleted)"),
        open("one of two"),
        open("the only one"),
    ];
    fs::remove_file(at("y (deleted)"))?;
    fs::hard_link(at("one of two"), at("the other"))?;
    fs::remove_file(at("one of two"))?;
    fs::remove_file(at("the only one"))?;
    // Deleted, nlink, path.
    let wanted = [
        (false, 1, "x (deleted)"),
        (true, 0, "y (deleted)"),
        (true, 1, "one of two"),
        (true, 0, "the only one"),
    ];
    let mut ring = ring();
    ring.register_files(&files.each_ref().map(AsFd::as_fd))?;
    by_every_way(&ring, |way, slots| {
        for (slot, want) in slots.iter().zip(wanted) {
            let file = slot.file().expect("a file");
            let seen = (file.is_deleted(), file.nlink());
            assert_eq!(seen, (Some(want.0), Some(want.1)), "{way:?}: {want:?}");
        }
    });
    let check = |records: Vec<Value>| {
        assert_eq!(records.len(), wanted.len());
        for (record, want) in records.iter().zip(wanted) {
            let (deleted, nlink, name) = want;
            let path = at(name);
            assert_eq!(record["deleted"], deleted, "{record}");
            assert_eq!(record["nlink"], nlink, "{record}");
            assert_eq!(record["path"], json!(path), "{record}");
        }
    };
    check(told(&ring, "--paths"));
    drop(files);
    if tells_paths() {
        check(told(&ring, "--paths"));
    }
    done()
}

/// Of files that have no descriptor.
fn tells_paths() -> bool {
    has_native() || kernel() >= (6, 18)
}

/// Who uses a file changes all of this without uring_lock.
fn a_file_that_grows_and_loses_links_does_not_disturb() -> Outcome {
    let folder = Folder::new("busy");
    let file = folder.file("file");
    let mut ring = ring();
    ring.register_files(&[file.as_fd()])?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Outcome {
        scope.spawn(|| {
            let (name, other) = (folder.0.join("file"), folder.0.join("other"));
            let mut size = 0;
            while !stop.load(Ordering::Relaxed) {
                size = (size + 1) % 100_000;
                file.set_len(size).expect("ftruncate");
                fs::hard_link(&name, &other).expect("link");
                fs::remove_file(&other).expect("unlink");
            }
        });
        let options = UringFileIter::options().backend(Backend::TaskFile);
        let mut iter = options.attach(&ring).expect("attach");
        let mut sizes = std::collections::BTreeSet::new();
        let mut look = || {
            let seen = iter.snapshot()?;
            let file = *seen[0].file().expect("a file");
            sizes.insert(file.size());
            Ok::<_, uring_bpf_iter::Error>((file, sizes.len()))
        };
        let end = Instant::now() + Duration::from_secs(10);
        let mut looks = Vec::new();
        while Instant::now() < end {
            looks.push(look());
            // A look is over before the other thread has done anything.
            std::thread::sleep(Duration::from_micros(100));
            match looks.last() {
                Some(Ok((_, 50..))) | Some(Err(_)) => break,
                _ => {}
            }
        }
        stop.store(true, Ordering::Relaxed);
        for look in &looks {
            let (file, _) = look.as_ref().expect("a snapshot");
            assert_eq!(file.is_deleted(), Some(false));
            assert!(matches!(file.nlink(), Some(1 | 2)), "{file:?}");
        }
        assert!(sizes.len() > 1, "{sizes:?}");
        done()
    })
}

fn paths_without_a_descriptor() -> Outcome {
    let folder = Folder::new("paths");
    let mut files = files_of_every_kind(&folder);
    let strange = OsStr::from_bytes(b"\xff \n\\012\t");
    let mut file = folder.file(strange);
    file.write_all(b"some text")?;
    files.push(file.into());
    let facts: Vec<Facts> = files.iter().map(|fd| Facts::of(fd.as_raw_fd())).collect();
    let mut ring = ring();
    let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    ring.register_files(&borrowed)?;
    let check = |records: Vec<Value>, known: &dyn Fn(&Facts) -> bool| {
        assert_eq!(records.len(), facts.len());
        for (record, facts) in records.iter().zip(&facts) {
            let shown = facts.link.as_os_str().as_bytes();
            let bare = shown.strip_suffix(b" (deleted)").unwrap_or(shown);
            if known(facts) {
                assert_eq!(bytes_of_path(record).as_deref(), Some(bare), "{record}");
            } else {
                assert_eq!(record["path"], json!(null), "{record}");
            }
            let fds = record["owner_fds"].as_array().expect("a list").len();
            assert_eq!(record["size"], facts.size, "{record}, {fds} descriptors");
        }
    };
    check(told(&ring, "--paths"), &|_| true);
    drop(files);
    check(told(&ring, "--paths"), &|facts| {
        tells_paths() || !facts.link.is_absolute()
    });
    if has_native() {
        check(told(&ring, "--paths --backend task-file"), &|facts| {
            kernel() >= (6, 18) || !facts.link.is_absolute()
        });
    }
    done()
}

/// With the bytes of a path that is not UTF-8 where there are such.
fn bytes_of_path(record: &Value) -> Option<Vec<u8>> {
    let Some(digits) = record.get("path_bytes") else {
        return record["path"].as_str().map(|path| path.as_bytes().to_vec());
    };
    let digits = digits.as_str().expect("text");
    let bytes = (0..digits.len()).step_by(2);
    let bytes = bytes.map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex"));
    let bytes: Vec<u8> = bytes.collect();
    let text = String::from_utf8_lossy(&bytes);
    assert_eq!(record["path"], *text, "{record}");
    assert!(std::str::from_utf8(&bytes).is_err(), "{record}");
    Some(bytes)
}

/// The kernel leaves the list out of its text: the paths are not known, and the files are
/// not told to have none.
fn a_taken_lock_hides_paths() -> Outcome {
    if kernel() < (6, 18) {
        return skip("before Linux 6.18 the text of a ring has no paths");
    }
    let mut ring = ring();
    let path = std::env::current_exe()?;
    ring.register_files(&[File::open(&path)?.as_fd()])?;
    let found = finder(Backend::TaskFile).find_fd(process::id(), ring.raw_fd())?;
    let reader = UringFileReader::new();
    assert_eq!(reader.paths(&found)?, [Some(path)]);
    let holder = uring_testkit::LockHolder::hold(&ring)?;
    let error = reader.paths(&found).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    drop(holder);
    drop(ring);
    let error = reader.paths(&found).unwrap_err();
    assert!(
        matches!(error, uring_bpf_iter::Error::RingGone { .. }),
        "{error}"
    );
    done()
}

fn slots_are_counted() -> Outcome {
    let null = File::open("/dev/null")?;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = limit.current.unwrap_or(u64::MAX).min(100_000) as u32;
    let look = |ring: &TestRing, slots: u32, filled: u32| {
        for backend in [Backend::TaskFile, Backend::Fdinfo] {
            let found = finder(backend).find_fd(process::id(), ring.raw_fd());
            let found = found.expect("the ring");
            let wanted = match backend {
                Backend::Fdinfo if kernel() < (6, 18) => None,
                _ => Some(filled),
            };
            assert_eq!(found.nr_files, Some(slots), "{backend}");
            assert_eq!(found.nr_files_filled, wanted, "{backend}, of {slots}");
        }
    };
    for slots in [8, most] {
        let mut ring = ring();
        look(&ring, 0, 0);
        ring.register_files_sparse(slots)?;
        look(&ring, slots, 0);
        ring.update_files(1, &[Some((null.as_fd(), 0)), None, Some((null.as_fd(), 0))])?;
        ring.update_files(slots - 1, &[Some((null.as_fd(), 0))])?;
        look(&ring, slots, 3);
        let args = format!("--pid {} --fd {}", process::id(), ring.raw_fd());
        let ran = super::tool::run("list", &args);
        let wanted = format!(" 3/{slots} ");
        assert!(ran.stdout.contains(&wanted), "{ran:?}");
        let head = &records("list", &args)[0];
        assert_eq!(head["nr_files_filled"], 3, "{head}");
        ring.update_files(1, &[None])?;
        look(&ring, slots, 2);
    }
    done()
}

/// There stat(2) tells another device than mountinfo, in a mount namespace that is ours.
fn devices_on_overlayfs() -> Outcome {
    let folder = Folder::new("overlay");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--"])
        .arg(std::env::current_exe()?);
    command.env(inner::MODE, "files-on-overlayfs");
    command.env(inner::FOREIGN, folder.0.to_str().expect("UTF-8"));
    let said = run::output(&mut command);
    if said.stdout.contains(NO_OVERLAY) {
        return skip("this kernel has no overlayfs");
    }
    assert!(
        said.status.success() && said.stdout.contains(inner::DONE),
        "{said:?}"
    );
    done()
}

const NO_OVERLAY: &str = "no overlayfs";

pub(super) fn inside_overlayfs() {
    let folder = PathBuf::from(std::env::var_os(inner::FOREIGN).expect("a folder"));
    let at = |name: &str| folder.join(name).display().to_string();
    let mount = |kind: &str, options: &str, place: &str| {
        let mut command = Command::new("mount");
        command.args(["-t", kind, kind, "-o", options, place]);
        command.status().expect("mount").success()
    };
    // Two file systems, whose devices overlayfs tells.
    assert!(mount("tmpfs", "rw", &at("")));
    for name in ["lower", "upper", "work", "all"] {
        fs::create_dir(at(name)).expect("mkdir");
    }
    assert!(mount("tmpfs", "rw", &at("lower")));
    fs::write(at("lower/old"), "old").expect("write");
    let dirs = format!(
        "xino=off,lowerdir={},upperdir={},workdir={}",
        at("lower"),
        at("upper"),
        at("work")
    );
    let all = at("all");
    if !mount("overlay", &dirs, &all) {
        println!("{NO_OVERLAY}");
        return;
    }
    let open = |name: &str| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.open(at(name)).expect("a file")
    };
    let old = File::open(at("all/old")).expect("open");
    let (kept, deleted) = (open("all/kept"), open("all/deleted"));
    fs::remove_file(at("all/deleted")).expect("unlink");
    let mut files = vec![old, kept, deleted];
    let facts: Vec<Facts> = files.iter().map(|f| Facts::of(f.as_raw_fd())).collect();
    let mut ring = ring();
    let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    ring.register_files(&borrowed).expect("register");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(4) == Some(&all));
    let device = line
        .and_then(|line| line.split(' ').nth(2))
        .expect("a line");
    let check = |known: bool| {
        for (record, facts) in told(&ring, "").iter().zip(&facts) {
            assert_eq!(record["device"], device, "{record}");
            let stat = known.then(|| format!("{}:{}", facts.device.0, facts.device.1));
            assert_eq!(record["stat_device"], json!(stat), "{record}");
            let deleted = facts.link.as_os_str().as_bytes().ends_with(b" (deleted)");
            assert_eq!(record["deleted"], deleted, "{record}");
            assert_eq!(record["nlink"], facts.nlink, "{record}");
            assert_eq!(record["size"], facts.size, "{record}");
        }
    };
    assert!(facts
        .iter()
        .any(|facts| { format!("{}:{}", facts.device.0, facts.device.1) != device }));
    check(true);
    files.clear();
    check(false);
}
