//! The items of epoll sets, in every way there is, against what was added and
//! against the kernel's own text.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{self, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{epoll, eventfd, EventfdFlags};
use rustix::process::{
    getpid, getrlimit, pidfd_getfd, pidfd_open, setrlimit, Pid, PidfdFlags, PidfdGetfdFlags,
    Resource,
};
use uring_bpf_iter::{
    Backend, Consistency, Contention, EpollEvents, EpollItem, EpollIter, Error, FileKind, Link,
    RegisteredBuf, Retry,
};
use uring_testkit::{
    epoll_lines, EpollItem as Added, EpollSet, KnownFile, LockHolder, RingBuilder,
};

use super::files::{kind, FMODE_MASK};
use super::native::as_nobody;
use super::oracle::has_native;
use super::results::skip;
use super::run::{again, spawn, Killed};
use super::{done, Outcome};

trials![
    an_empty_set,
    sets_of_every_size,
    ten_thousand_items,
    every_kind_of_file,
    files_under_one_number,
    one_file_under_many_numbers,
    every_event_is_shown_as_it_is,
    one_iterator_sees_every_change,
    a_set_of_another_process,
    what_is_no_epoll_set,
    a_closed_set_is_gone,
    a_number_that_is_another_set,
    a_number_that_is_another_file,
    a_set_that_outlives_its_process,
    a_set_whose_lock_is_held,
    links_and_streams,
    as_many_items_as_are_read,
];

const IN: u32 = EpollEvents::IN.bits();

/// Those that this kernel has.
pub(super) fn backends() -> impl Iterator<Item = Backend> {
    [Backend::Native, Backend::TaskFile, Backend::Fdinfo]
        .into_iter()
        .filter(|backend| *backend != Backend::Native || has_native())
}

#[track_caller]
fn attach(backend: Backend, pid: u32, fd: i32) -> EpollIter {
    let options = EpollIter::options().backend(backend);
    let iter = options.attach_pid(pid, fd);
    iter.unwrap_or_else(|e| panic!("attach {backend} to {pid}/{fd}: {e}"))
}

fn fd_of(set: &EpollSet) -> i32 {
    set.as_fd().as_raw_fd()
}

fn counter() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).expect("eventfd")
}

fn set() -> EpollSet {
    EpollSet::new().expect("an epoll set")
}

/// A set of so many counters.
fn set_of(items: u64) -> EpollSet {
    let mut set = set();
    for data in 0..items {
        set.keep(counter(), IN, data).expect("add");
    }
    set
}

/// By every backend.
#[track_caller]
fn check(set: &EpollSet) {
    for backend in backends() {
        let mut iter = attach(backend, process::id(), fd_of(set));
        assert_reads(&mut iter, set);
    }
}

#[track_caller]
fn assert_reads(iter: &mut EpollIter, set: &EpollSet) {
    let backend = iter.selection().backend;
    let items = iter.snapshot().unwrap_or_else(|e| panic!("{backend}: {e}"));
    assert_eq!(items.backend(), backend);
    let consistency = match backend {
        Backend::TaskFile => Consistency::Verified,
        _ => Consistency::Locked,
    };
    assert_eq!(items.consistency(), consistency, "{backend}");
    assert_kernels_text(backend, process::id(), fd_of(set), &items);
    assert_added(backend, set.expected(), &items);
}

/// The order, too.
#[track_caller]
fn assert_kernels_text(backend: Backend, pid: u32, fd: i32, items: &[EpollItem]) {
    let lines = epoll_lines(pid, fd).expect("fdinfo");
    assert_eq!(items.len(), lines.len(), "{backend}");
    for (at, (item, line)) in items.iter().zip(lines).enumerate() {
        let context = format!("{backend}, item {at}: {item:?}, {line:?}");
        assert_eq!(item.fd(), line.fd, "{context}");
        assert_eq!(item.events().bits(), line.events, "{context}");
        assert_eq!(item.data(), line.data, "{context}");
        let file = item.file();
        assert_eq!(file.inode(), line.inode, "{context}");
        assert_eq!(file.device(), line.device, "{context}");
        assert_eq!(file.position(), line.pos as i64, "{context}");
    }
}

/// In any order: that of the kernel is by addresses.
#[track_caller]
fn assert_added(backend: Backend, added: &[Added], items: &[EpollItem]) {
    assert_eq!(items.len(), added.len(), "{backend}");
    let mut items: Vec<&EpollItem> = items.iter().collect();
    let mut added: Vec<&Added> = added.iter().collect();
    items.sort_by_key(|item| (item.data(), item.fd()));
    added.sort_by_key(|item| (item.data, item.fd));
    for (item, want) in items.into_iter().zip(added) {
        let context = format!("{backend}: {item:?}, added: {want:?}");
        assert_eq!(item.fd(), want.fd, "{context}");
        assert_eq!(item.data(), want.data, "{context}");
        assert_eq!(item.events().bits(), want.events, "{context}");
        let file = item.file();
        assert_eq!(file.inode(), want.file.inode, "{context}");
        assert_eq!(file.device(), want.file.device, "{context}");
        if backend == Backend::Fdinfo {
            assert_eq!(file.kind(), FileKind::Unknown, "{context}");
            assert!(!file.same_file(file), "{context}");
        } else {
            assert_eq!(file.kind(), kind(&want.file), "{context}");
            assert_eq!(u32::from(file.mode()), want.file.mode, "{context}");
            let flags = |flags| flags & !FMODE_MASK;
            assert_eq!(flags(file.flags()), flags(want.file.flags), "{context}");
        }
    }
}

fn an_empty_set() -> Outcome {
    check(&set());
    done()
}

fn sets_of_every_size() -> Outcome {
    // 1024 is the room that there is at first.
    for items in [1, 2, 3, 10, 100, 1023, 1024, 1025] {
        check(&set_of(items));
    }
    done()
}

fn ten_thousand_items() -> Outcome {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(20_000);
    limit.maximum = limit.maximum.map(|most| most.max(20_000));
    setrlimit(Resource::Nofile, limit)?;
    let mut set = set();
    let one = counter();
    for data in 0..10_000 {
        set.keep(one.try_clone()?, IN, data)?;
    }
    check(&set);
    // Fewer again, by one iterator.
    let mut iters: Vec<_> = backends()
        .map(|backend| attach(backend, process::id(), fd_of(&set)))
        .collect();
    for iter in &mut iters {
        assert_eq!(iter.snapshot()?.len(), 10_000);
    }
    let small = set_of(5);
    let mut iter = EpollIter::attach(&small)?;
    assert_eq!(iter.snapshot()?.len(), 5);
    done()
}

fn every_kind_of_file() -> Outcome {
    let mut set = set();
    let (read, write) = rustix::pipe::pipe()?;
    let (left, right) = UnixStream::pair()?;
    let files: Vec<OwnedFd> = vec![
        read,
        write,
        left.into(),
        right.into(),
        counter(),
        EpollSet::new()?.as_fd().try_clone_to_owned()?,
        RingBuilder::new(8).build()?.as_fd().try_clone_to_owned()?,
        File::open("/proc/self/mounts")?.into(),
        File::open("/dev/random")?.into(),
        pidfd_open(getpid(), PidfdFlags::empty())?,
        rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC)?,
    ];
    let mut kinds = Vec::new();
    for (file, data) in files.into_iter().zip(7 << 40..) {
        kinds.push(kind(&KnownFile::of(&file)?));
        set.keep(file, IN, data)?;
    }
    for wanted in [
        FileKind::Pipe,
        FileKind::Socket,
        FileKind::Eventfd,
        FileKind::Epoll,
        FileKind::IoUring,
        FileKind::Regular,
        FileKind::CharDevice,
        FileKind::AnonInode,
    ] {
        assert!(kinds.contains(&wanted), "{wanted} is not tested");
    }
    check(&set);
    done()
}

/// Each under the number of the one before it, which stays open elsewhere.
fn files_under_one_number() -> Outcome {
    let mut set = set();
    let number = set.keep_under_one_number((0..40).map(|_| counter()), IN, 900)?;
    set.keep(counter(), IN, 7)?;
    let same = set.expected().iter().filter(|item| item.fd == number);
    assert_eq!(same.count(), 40);
    check(&set);
    // They are forty files.
    for backend in backends().filter(|backend| *backend != Backend::Fdinfo) {
        let mut iter = EpollIter::options().backend(backend).attach(&set)?;
        let items = iter.snapshot()?;
        for (at, one) in items.iter().enumerate() {
            let same = items
                .iter()
                .filter(|item| item.file().same_file(one.file()));
            assert_eq!(same.count(), 1, "{backend}, item {at}");
        }
    }
    done()
}

fn one_file_under_many_numbers() -> Outcome {
    let mut set = set();
    let file = counter();
    for data in 0..40 {
        set.keep(file.try_clone()?, IN, data)?;
    }
    check(&set);
    for backend in backends().filter(|backend| *backend != Backend::Fdinfo) {
        let mut iter = EpollIter::options().backend(backend).attach(&set)?;
        let items = iter.snapshot()?;
        assert!(items
            .iter()
            .all(|item| item.file().same_file(items[0].file())));
    }
    done()
}

fn every_event_is_shown_as_it_is() -> Outcome {
    let mut set = set();
    let bits = (0..27).chain([30, 31]).map(|bit| 1u32 << bit);
    // With EPOLLEXCLUSIVE no more than these.
    let exclusive = EpollEvents::EXCLUSIVE | EpollEvents::IN | EpollEvents::ET;
    for (events, data) in bits.chain([exclusive.bits(), 0]).zip(0..) {
        set.keep(counter(), events, data)?;
    }
    check(&set);
    let names = EpollEvents::EXCLUSIVE | EpollEvents::ERR | EpollEvents::HUP;
    let mut iter = EpollIter::attach(&set)?;
    let items = iter.snapshot()?;
    let with = |events| items.iter().filter(move |i| i.events().contains(events));
    assert_eq!(with(names).count(), 1);
    assert_eq!(with(EpollEvents::ET).count(), 2);

    // It takes CAP_BLOCK_SUSPEND, and a machine that suspends.
    let mut wakeup = EpollSet::new()?;
    wakeup.keep(counter(), EpollEvents::WAKEUP.bits(), 1)?;
    for backend in backends() {
        let mut iter = EpollIter::options().backend(backend).attach(&wakeup)?;
        assert_kernels_text(backend, process::id(), fd_of(&wakeup), &iter.snapshot()?);
    }

    // One that has fired rests: the kernel's text says so, and so do we.
    let ready = eventfd(1, EventfdFlags::CLOEXEC)?;
    let mut shots = EpollSet::new()?;
    shots.keep(ready, (EpollEvents::IN | EpollEvents::ONESHOT).bits(), 3)?;
    let mut events = Vec::with_capacity(4);
    rustix::event::epoll::wait(&shots, rustix::buffer::spare_capacity(&mut events), None)?;
    for backend in backends() {
        let mut iter = EpollIter::options().backend(backend).attach(&shots)?;
        let items = iter.snapshot()?;
        assert_eq!(items[0].events(), EpollEvents::ONESHOT, "{backend}");
        assert_kernels_text(backend, process::id(), fd_of(&shots), &items);
    }
    done()
}

fn one_iterator_sees_every_change() -> Outcome {
    let mut set = set();
    let me = process::id();
    let mut iters: Vec<EpollIter> = backends()
        .map(|backend| attach(backend, me, fd_of(&set)))
        .collect();
    let mut check = |set: &EpollSet| {
        iters.iter_mut().for_each(|iter| assert_reads(iter, set));
    };
    check(&set);
    let file = counter();
    set.add(&file, IN, 1)?;
    check(&set);
    set.modify(&file, IN | EpollEvents::ET.bits(), 2)?;
    check(&set);
    for data in 0..2000 {
        set.keep(counter(), IN, data)?;
    }
    check(&set);
    set.remove(&file)?;
    check(&set);
    done()
}

/// Another process with a set of its own. (A child that has copies of all
/// descriptors would keep the sets of other trials.)
struct Foreign {
    process: Killed,
    fd: i32,
}

const FOREIGN_ITEMS: usize = 300;

impl Foreign {
    fn start() -> Self {
        let mut command = again("epoll-set");
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Killed(spawn(command).expect("this program again"));
        let stdout = process.0.stdout.take().expect("piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let fd = line.trim().parse().expect("a number");
        Self { process, fd }
    }

    fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// A descriptor of its set.
    fn copy(&self) -> OwnedFd {
        let pid = Pid::from_child(&self.process.0);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("pidfd_open");
        pidfd_getfd(pidfd, self.fd, PidfdGetfdFlags::empty()).expect("pidfd_getfd")
    }
}

/// The other process: tells the number of its set, and waits for its end.
pub(super) fn inside() {
    let set = set_of(FOREIGN_ITEMS as u64);
    println!("{}", fd_of(&set));
    std::io::read_to_string(std::io::stdin()).expect("stdin");
}

fn a_set_of_another_process() -> Outcome {
    for backend in backends() {
        let foreign = Foreign::start();
        let pid = foreign.pid();
        let mut iter = attach(backend, pid, foreign.fd);
        let items = iter.snapshot()?;
        assert_eq!(items.len(), FOREIGN_ITEMS);
        assert_kernels_text(backend, pid, foreign.fd, &items);
        drop(foreign);
        assert_gone(&mut iter);
    }
    done()
}

fn what_is_no_epoll_set() -> Outcome {
    let me = process::id();
    let ring = RingBuilder::new(8).build()?;
    let (read, _write) = rustix::pipe::pipe()?;
    let named =
        rustix::fs::memfd_create("anon_inode:[eventpoll]", rustix::fs::MemfdFlags::CLOEXEC)?;
    let counter = counter();
    for backend in backends().map(Some).chain([None]) {
        let options = || EpollIter::options().backend(backend);
        for fd in [ring.as_fd(), read.as_fd(), named.as_fd(), counter.as_fd()] {
            for error in [
                options().attach(fd).map(drop).unwrap_err(),
                options()
                    .attach_pid(me, fd.as_raw_fd())
                    .map(drop)
                    .unwrap_err(),
            ] {
                assert!(matches!(error, Error::NotAnEpoll { .. }), "{error:?}");
                assert!(!error.is_retryable());
            }
        }
        for fd in [-1, 19_999] {
            let error = options().attach_pid(me, fd).unwrap_err();
            assert!(matches!(error, Error::NoSuchDescriptor { .. }), "{error:?}");
        }
        let error = options().attach_pid(4_194_305, 0).unwrap_err();
        assert!(matches!(error, Error::NoSuchProcess { .. }), "{error:?}");
    }
    done()
}

#[track_caller]
fn assert_gone(iter: &mut EpollIter) {
    let backend = iter.selection().backend;
    for _ in 0..2 {
        let error = iter.snapshot().map(|items| items.len());
        let error = error.expect_err(&format!("{backend}: it is gone"));
        assert!(matches!(error, Error::EpollGone { .. }), "{error:?}");
        assert!(!error.is_retryable(), "{backend}");
    }
}

fn a_closed_set_is_gone() -> Outcome {
    for backend in backends() {
        let set = set_of(10);
        let mut iter = EpollIter::options().backend(backend).attach(&set)?;
        assert_eq!(iter.snapshot()?.len(), 10);
        let mut unseen = EpollIter::options().backend(backend).attach(&set)?;
        drop(set);
        assert_gone(&mut iter);
        assert_gone(&mut unseen);
    }
    done()
}

/// Both sets are there at the same time, so that they are two for sure.
fn a_number_that_is_another_set() -> Outcome {
    for backend in backends().filter(|backend| *backend != Backend::Fdinfo) {
        let other = set_of(3);
        let set = set_of(10);
        let fd = set.as_fd().try_clone_to_owned()?;
        let mut seen = EpollIter::options().backend(backend).attach(&fd)?;
        assert_eq!(seen.snapshot()?.len(), 10);
        let mut unseen = EpollIter::options().backend(backend).attach(&fd)?;
        drop(set);
        let mut fd = fd;
        rustix::io::dup2(other.as_fd(), &mut fd)?;
        // By name, for it closed the old one with that.
        assert_gone(&mut seen);
        assert_gone(&mut unseen);
        let mut again = EpollIter::options().backend(backend).attach(&fd)?;
        assert_eq!(again.snapshot()?.len(), 3);
    }
    done()
}

fn a_number_that_is_another_file() -> Outcome {
    for backend in backends() {
        let other = counter();
        let mut fd = set_of(10).as_fd().try_clone_to_owned()?;
        let mut iter = EpollIter::options().backend(backend).attach(&fd)?;
        rustix::io::dup2(&other, &mut fd)?;
        assert_gone(&mut iter);
    }
    done()
}

fn a_set_that_outlives_its_process() -> Outcome {
    for backend in backends() {
        let foreign = Foreign::start();
        let mut iter = attach(backend, foreign.pid(), foreign.fd);
        let copy = foreign.copy();
        drop(foreign);
        match backend {
            // It is the set that it is attached to. The files have gone.
            Backend::Native => assert_eq!(iter.snapshot()?.len(), 0),
            _ => assert_gone(&mut iter),
        }
        drop(copy);
        assert_gone(&mut iter);
    }
    done()
}

fn a_set_whose_lock_is_held() -> Outcome {
    const HELD: Duration = Duration::from_millis(300);
    let mut set = set_of(20);
    set.keep(eventfd(1, EventfdFlags::CLOEXEC)?, IN, 77)?;
    let brief = Retry {
        deadline: Duration::from_millis(50),
        ..Retry::default()
    };
    let options = EpollIter::options().backend(Backend::TaskFile).retry(brief);
    let mut iter = options.attach(&set)?;
    let holder = LockHolder::hold_epoll(&set)?;
    let error = iter.snapshot().map(drop).expect_err("the lock is held");
    assert!(error.is_retryable(), "{error:?}");
    let Error::Contended { why, attempts, .. } = error else {
        panic!("{error:?}");
    };
    let Contention::LockHeld(owner) = why else {
        panic!("{why:?}");
    };
    assert_eq!(owner.pid, Some(process::id()));
    assert_eq!((&*owner.name, owner.sleeps), ("lock-holder", true));
    assert!(attempts > 1);
    let raw = iter.snapshot_raw()?;
    assert_eq!(raw.consistency(), Consistency::Raw);
    assert_added(Backend::TaskFile, set.expected(), &raw);
    holder.release()?;
    assert_reads(&mut iter, &set);

    // The others wait for the lock.
    for backend in backends().filter(|backend| *backend != Backend::TaskFile) {
        let mut iter = EpollIter::options().backend(backend).attach(&set)?;
        let holder = LockHolder::hold_epoll(&set)?;
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(HELD);
                holder.release().expect("release");
            });
            assert_eq!(iter.snapshot().expect("it waits").len(), 21);
        });
        assert!(start.elapsed() >= HELD, "{backend} did not wait");
    }
    done()
}

fn links_and_streams() -> Outcome {
    if !has_native() {
        return skip("this kernel has no iterator target epoll: see kernel/");
    }
    // More than one read gives.
    let mut set = set_of(3000);
    set.keep_under_one_number((0..10).map(|_| counter()), IN, 5000)?;
    let link = Link::<EpollItem>::attach(&set)?;
    let info = link.info()?;
    assert_eq!(info.target, "epoll");
    let id = info.ep_id.expect("a number");
    let mut read = Vec::new();
    let mut records = link.records()?;
    while let Some(batch) = records.next_batch()? {
        read.extend_from_slice(batch);
    }
    assert_kernels_text(Backend::Native, process::id(), fd_of(&set), &read);
    assert_added(Backend::Native, set.expected(), &read);
    assert!(records.next_batch()?.is_none(), "an end is an end");

    let error = Link::<EpollItem>::attach(counter()).unwrap_err();
    assert!(matches!(error, Error::NotAnEpoll { .. }), "{error:?}");
    let error = Link::<RegisteredBuf>::attach(&set).unwrap_err();
    assert!(matches!(error, Error::NotARing { .. }), "{error:?}");

    let other = Link::<EpollItem>::attach(set_of(1))?;
    assert_ne!(other.info()?.ep_id, Some(id));
    assert_eq!(Link::<EpollItem>::attach(&set)?.info()?.ep_id, Some(id));

    let mut begun = link.records()?;
    drop(set);
    let gone = [link.records().map(drop), begun.next_batch().map(drop)];
    for error in gone.map(Result::unwrap_err) {
        assert!(matches!(error, Error::EpollGone { .. }), "{error:?}");
        assert!(error.to_string().contains(&id.to_string()), "{error}");
    }
    assert_eq!(link.info()?.ep_id, Some(id));
    done()
}

/// The machine's limit of items in all sets of a user, raised for a while.
///
/// Items are counted to the user who has made the set. Who has more of them than the
/// limit, as when it has been set back, adds none: let that be nobody else.
struct MoreWatches(Option<String>);

const WATCHES: &str = "/proc/sys/fs/epoll/max_user_watches";

impl MoreWatches {
    fn ask(enough: u64) -> std::io::Result<Self> {
        let before = std::fs::read_to_string(WATCHES)?;
        if before
            .trim()
            .parse()
            .is_ok_and(|limit: u64| limit >= enough)
        {
            return Ok(Self(None));
        }
        std::fs::write(WATCHES, enough.to_string())?;
        Ok(Self(Some(before)))
    }
}

impl Drop for MoreWatches {
    fn drop(&mut self) {
        let Some(before) = &self.0 else { return };
        if let Err(e) = std::fs::write(WATCHES, before) {
            println!("{WATCHES} cannot be set back: {e}");
        }
    }
}

/// In an order that is not that of memory: the kernel's clock does not end the walk. And
/// one more, which is said, and not taken for a tree that is being changed.
fn as_many_items_as_are_read() -> Outcome {
    const MOST: usize = 1 << 20;
    const NUMBERS: usize = 1 << 14;
    const FILES: usize = 80;
    let _may = MoreWatches::ask(4_000_000)?;
    let set = as_nobody(set);
    let files: Vec<OwnedFd> = (0..FILES).map(|_| counter()).collect();
    let mut places = (0..FILES * NUMBERS)
        // Each once: the factor has none in common with their number.
        .map(|nth| nth * 611_953 % (FILES * NUMBERS))
        .map(|at| (&files[at / NUMBERS], 2000 + (at % NUMBERS) as i32));
    // Other trials may have a number for themselves.
    let mut add = |nth: usize| loop {
        let (file, number) = places.next().expect("enough numbers");
        let dup = rustix::io::fcntl_dupfd_cloexec(file, number)?;
        if dup.as_raw_fd() != number {
            continue;
        }
        let data = epoll::EventData::new_u64(nth as u64);
        return epoll::add(set.as_fd(), &dup, data, epoll::EventFlags::IN);
    };
    for nth in 0..MOST {
        add(nth)?;
    }
    let mut iters: Vec<(Backend, EpollIter)> = Vec::new();
    for backend in backends().filter(|backend| *backend != Backend::Fdinfo) {
        let options = EpollIter::options().backend(backend);
        iters.push((backend, options.attach(set.as_fd())?));
    }
    for (backend, iter) in &mut iters {
        let start = Instant::now();
        let mut seen = vec![false; MOST];
        for item in iter.snapshot()?.iter() {
            seen[item.data() as usize] = true;
        }
        assert!(seen.iter().all(|seen| *seen), "{backend}: one is missing");
        println!("{MOST} items, {backend}: {:.1?}", start.elapsed());
    }
    add(MOST)?;
    for (backend, iter) in &mut iters {
        let error = iter.snapshot().map(drop).unwrap_err();
        let too_large = matches!(error, Error::TableTooLarge { slots, .. } if slots > MOST as u64);
        assert!(too_large, "{backend}: {error}");
    }
    done()
}
