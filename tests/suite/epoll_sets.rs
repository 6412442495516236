//! The search for epoll sets: each once, with all that hold it, wherever they have it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{self, Stdio};

use rustix::event::{eventfd, EventfdFlags};
use rustix::io::DupFlags;
use uring_bpf_iter::{
    Backend, DescriptorReader, EpollFinder, EpollIter, EpollReader, EpollSet as Found, Error,
    Holder, NumberNow,
};
use uring_testkit::{end_thread, fork_holder, unshare_descriptors, EpollSet};

use super::inner::expect_done;
use super::run::{again, idle_process, spawn, Killed};
use super::{done, Outcome};

trials![
    a_leader_that_has_ended,
    threads_with_their_own_descriptors,
    a_dup_is_the_same_set,
    a_set_shared_by_fork,
    all_sets_of_the_machine,
    a_number_that_went_to_another_set,
    numbers_of_items_by_now,
    what_cannot_be_found,
];

const BACKENDS: [Backend; 2] = [Backend::TaskFile, Backend::Fdinfo];

fn finder(backend: Backend) -> EpollFinder {
    EpollFinder::with_backend(backend).expect("a finder")
}

fn reader(backend: Backend) -> EpollReader {
    EpollReader::options().backend(backend).epoll_reader()
}

fn counter() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).expect("eventfd")
}

/// A set with one counter, whose data is this.
fn set_with(data: u64) -> EpollSet {
    let mut set = EpollSet::new().expect("an epoll set");
    set.keep(counter(), 1, data).expect("add");
    set
}

fn fd_of(set: &EpollSet) -> i32 {
    set.as_fd().as_raw_fd()
}

fn own_tid() -> u32 {
    rustix::thread::gettid().as_raw_pid() as u32
}

/// A process of this program that has said some numbers, and does nothing more.
pub(super) struct Helper {
    process: Killed,
    pub(super) said: Vec<u32>,
}

impl Helper {
    #[track_caller]
    pub(super) fn start(mode: &str) -> Self {
        let mut command = again(mode);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Killed(spawn(&mut command).expect("this program"));
        let mut line = String::new();
        let mut said = BufReader::new(process.0.stdout.take().expect("piped"));
        said.read_line(&mut line).expect("a line");
        let numbers = line
            .split_whitespace()
            .map(|n| n.parse().expect("a number"));
        let said = numbers.collect();
        Self { process, said }
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.0.id()
    }
}

fn wait_for_the_end() {
    std::io::read_to_string(std::io::stdin()).expect("stdin");
}

/// The first thread ends; another one goes on with a set. Says thread, set and counter.
pub(super) fn inside_leaderless() {
    let worker = || {
        let counter = counter();
        let mut set = EpollSet::new().expect("an epoll set");
        set.add(&counter, 1, 42).expect("add");
        // Not before the first thread has ended.
        let leader = format!("/proc/self/task/{}/stat", process::id());
        while !std::fs::read_to_string(&leader)
            .expect("stat")
            .contains(") Z ")
        {
            std::thread::yield_now();
        }
        println!("{} {} {}", own_tid(), fd_of(&set), counter.as_raw_fd());
        wait_for_the_end();
        process::exit(0);
    };
    std::thread::spawn(worker);
    end_thread();
}

/// Where both threads have a set.
pub(super) const BOTH: i32 = 100;

/// A number that is one set in the table of the process and another one in that of a
/// thread. Says the thread.
pub(super) fn inside_tables() {
    let set = set_with(1);
    let mut both = rustix::io::fcntl_dupfd_cloexec(&set, BOTH).expect("dup");
    assert_eq!(both.as_raw_fd(), BOTH);
    let worker = move || {
        unshare_descriptors().expect("unshare");
        let of_thread = set_with(2);
        rustix::io::dup3(&of_thread, &mut both, DupFlags::CLOEXEC).expect("dup2");
        println!("{}", own_tid());
        wait_for_the_end();
        // The number of the first thread is not ours to close.
        process::exit(0);
    };
    std::thread::spawn(worker).join().expect("no panic");
}

/// A set that a child has, too. Says the child, the set, a counter that it watches, and
/// one that nobody does.
pub(super) fn inside_forked() {
    let (watched, other) = (counter(), counter());
    let mut set = EpollSet::new().expect("an epoll set");
    set.add(&watched, 1, 7).expect("add");
    let child = fork_holder().expect("fork");
    let (watched, other) = (watched.as_raw_fd(), other.as_raw_fd());
    println!("{child} {} {watched} {other}", fd_of(&set));
    wait_for_the_end();
}

fn data_of(reader: &mut EpollReader, set: &Found) -> Vec<u64> {
    let items = reader.snapshot(set).expect("a snapshot");
    items.iter().map(|item| item.data()).collect()
}

fn ways(set: &Found) -> Vec<(u32, u32, Option<i32>)> {
    let way = |holder: &Holder| (holder.pid, holder.tid, holder.fd());
    set.holders().iter().map(way).collect()
}

fn a_leader_that_has_ended() -> Outcome {
    let helper = Helper::start("epoll-leaderless");
    let (pid, tid, fd) = (helper.pid(), helper.said[0], helper.said[1] as i32);
    for backend in BACKENDS {
        let survey = finder(backend).find_in(pid)?;
        assert_eq!(survey.unseen, [], "{backend}");
        let [set] = &survey.sets[..] else {
            panic!("{backend}: one set: {survey:?}");
        };
        assert_eq!(ways(set), [(pid, tid, Some(fd))], "{backend}");
        assert_eq!(data_of(&mut reader(backend), set), [42], "{backend}");
        assert_eq!(finder(backend).find_fd(pid, fd)?.sets.len(), 1);
        assert_eq!(finder(backend).find_thread(tid)?.sets.len(), 1);
        let options = || EpollIter::options().backend(backend);
        for iter in [
            options().attach_pid(pid, fd),
            options().attach_tid(tid, fd),
            options().attach_set(set),
        ] {
            let mut iter = iter.unwrap_or_else(|e| panic!("{backend}: {e}"));
            let items = iter.snapshot()?;
            assert_eq!(
                items.iter().map(|item| item.data()).collect::<Vec<_>>(),
                [42]
            );
        }
    }
    done()
}

fn threads_with_their_own_descriptors() -> Outcome {
    let helper = Helper::start("epoll-tables");
    let (pid, tid) = (helper.pid(), helper.said[0]);
    for backend in BACKENDS {
        let sets = finder(backend).find_fd(pid, BOTH)?.sets;
        assert_eq!(sets.len(), 2, "{backend}: {sets:?}");
        let mut reader = reader(backend);
        let data = |set| data_of(&mut reader, set)[0];
        let by_data: Vec<u64> = sets.iter().map(data).collect();
        assert_eq!(by_data, [1, 2], "{backend}: {sets:?}");
        assert!(ways(&sets[0]).contains(&(pid, pid, Some(BOTH))), "{sets:?}");
        assert!(ways(&sets[1]).contains(&(pid, tid, Some(BOTH))), "{sets:?}");
        // What the thread has and its process has not.
        let of_thread = finder(backend).find_thread(tid)?.sets;
        let at = |set: &&Found| set.fds_of(set.owner()).any(|fd| fd == BOTH);
        let at_both: Vec<&Found> = of_thread.iter().filter(at).collect();
        assert_eq!(at_both.len(), 1, "{backend}: {of_thread:?}");
        assert_eq!((at_both[0].owner().pid, at_both[0].owner().tid), (pid, tid));
        let options = || EpollIter::options().backend(backend);
        for (iter, data) in [
            (options().attach_pid(pid, BOTH), 1),
            (options().attach_tid(pid, BOTH), 1),
            (options().attach_tid(tid, BOTH), 2),
        ] {
            assert_eq!(iter?.snapshot()?[0].data(), data, "{backend}");
        }
    }
    done()
}

fn a_dup_is_the_same_set() -> Outcome {
    let (set, other) = (set_with(1), set_with(2));
    let dup = set.as_fd().try_clone_to_owned()?;
    let both = BTreeSet::from([fd_of(&set), dup.as_raw_fd()]);
    let me = process::id();
    for backend in BACKENDS {
        let sets = finder(backend).find_in(me)?.sets;
        let with = |fd: i32| {
            let mut all = sets.iter().filter(|set| set.holder(me, Some(fd)).is_some());
            let set = all.next().expect("found");
            assert!(all.next().is_none(), "{backend}: twice");
            set
        };
        let found = with(fd_of(&set));
        let fds: BTreeSet<i32> = found.fds_of(found.owner()).collect();
        assert_eq!(fds, both, "{backend}");
        assert_eq!(found, with(dup.as_raw_fd()));
        assert_ne!(found, with(fd_of(&other)));
        let again = finder(backend).find_fd(me, dup.as_raw_fd())?;
        let again = &again.sets[0];
        assert_eq!(found.same_set(again), backend == Backend::TaskFile);
        assert!(!found.same_set(with(fd_of(&other))));
    }
    done()
}

fn a_set_shared_by_fork() -> Outcome {
    let helper = Helper::start("epoll-forked");
    let (pid, child, fd) = (helper.pid(), helper.said[0], helper.said[1] as i32);
    for backend in BACKENDS {
        for one in [pid, child] {
            let sets = finder(backend).find_in(one)?.sets;
            assert_eq!(sets.len(), 1, "{backend}: {sets:?}");
            let holders: BTreeSet<_> = ways(&sets[0]).into_iter().collect();
            let both = [(pid, pid, Some(fd)), (child, child, Some(fd))];
            assert_eq!(holders, BTreeSet::from(both), "{backend}");
        }
    }
    done()
}

fn all_sets_of_the_machine() -> Outcome {
    let set = set_with(1);
    let helpers = ["epoll-leaderless", "epoll-tables", "epoll-forked"].map(Helper::start);
    for backend in BACKENDS {
        let survey = finder(backend).find_all()?;
        let count = |pid| {
            let of = survey.sets.iter();
            of.filter(|set| set.holder(pid, None).is_some()).count()
        };
        let counts = helpers.each_ref().map(|helper| count(helper.pid()));
        assert_eq!(counts, [1, 2, 1], "{backend}");
        let mut own = survey.sets.iter();
        assert!(own.any(|one| one.holder(process::id(), Some(fd_of(&set))).is_some()));
        assert!(survey.sets.is_sorted_by_key(|set| set.owner().pid));
    }
    done()
}

/// A set that was found is that very set, which lives on under a number of which the
/// search does not know.
fn a_number_that_went_to_another_set() -> Outcome {
    let first = set_with(1);
    let mut number = rustix::io::fcntl_dupfd_cloexec(&first, 3)?;
    let fd = number.as_raw_fd();
    let me = process::id();
    let mut reader = reader(Backend::TaskFile);
    let find = || {
        finder(Backend::TaskFile)
            .find_fd(me, fd)
            .expect("found")
            .sets
    };
    let found = find();
    assert_eq!(data_of(&mut reader, &found[0]), [1]);
    // The number alone, as if the other were not there.
    let second = set_with(2);
    rustix::io::dup3(&second, &mut number, DupFlags::CLOEXEC)?;
    let now = find();
    assert_eq!(data_of(&mut reader, &now[0]), [2]);
    assert!(!now[0].same_set(&found[0]));
    // The first one is still there under its own number ...
    assert_eq!(data_of(&mut reader, &found[0]), [1]);
    let kept = rustix::io::fcntl_dupfd_cloexec(&first, 3)?;
    drop(first);
    // ... and by now under one that the search did not see.
    for _ in 0..2 {
        let error = reader.snapshot(&found[0]).map(|items| items.len());
        let error = error.expect_err("it is not where it was");
        assert!(matches!(error, Error::EpollGone { .. }), "{error:?}");
        let options = EpollIter::options().backend(Backend::TaskFile);
        let error = options
            .attach_set(&found[0])
            .and_then(|mut iter| Ok(iter.snapshot()?.len()));
        let error = error.expect_err("it is not where it was");
        assert!(matches!(error, Error::EpollGone { .. }), "{error:?}");
    }
    assert_eq!(
        data_of(&mut reader, &now[0]),
        [2],
        "others are not hindered"
    );
    drop(kept);
    done()
}

fn numbers_of_items_by_now() -> Outcome {
    expect_done(&mut again("epoll-numbers"));
    done()
}

/// In a process without other trials, whose descriptors would have a second holder
/// meanwhile.
pub(super) fn inside_numbers() {
    let mut set = EpollSet::new().expect("an epoll set");
    let (same, closed, file) = (counter(), counter(), counter());
    set.add(&same, 1, 1).expect("as asked");
    // Not one of the lowest, which what is opened next gets.
    let number = rustix::io::fcntl_dupfd_cloexec(&closed, 500).expect("as asked");
    set.add(&number, 1, 2).expect("as asked");
    let fd = number.as_raw_fd();
    let mut reused = file.try_clone().expect("as asked");
    set.add(&reused, 1, 3).expect("as asked");
    // Another counter, which has the same inode.
    rustix::io::dup3(counter(), &mut reused, DupFlags::CLOEXEC).expect("as asked");
    // Closed in the table of a thread, which the rest of the process does not share.
    let worker = move || {
        unshare_descriptors().expect("unshare");
        drop(number);
        let mut iter = EpollIter::options()
            .backend(Backend::TaskFile)
            .attach(&set)
            .expect("attach");
        let items = iter.snapshot().expect("a snapshot").to_vec();
        let mut reader = DescriptorReader::new().expect("a reader");
        let own = reader.read_thread(own_tid()).expect("descriptors");
        assert!(!own.is_empty() && !own.contains(fd));
        let now = |data| {
            let item = items.iter().find(|item| item.data() == data);
            let item = item.expect("an item");
            (own.now(item).expect("known"), own.of(item.file()).to_vec())
        };
        let fds = |of: &OwnedFd| vec![of.as_raw_fd()];
        assert_eq!(now(1), (NumberNow::SameFile, fds(&same)));
        assert_eq!(now(2), (NumberNow::Closed, fds(&closed)));
        assert_eq!(now(3), (NumberNow::OtherFile, fds(&file)));
        // fdinfo says no more of a file than its inode.
        let options = EpollIter::options().backend(Backend::Fdinfo);
        let mut iter = options.attach(&set).expect("attach");
        let items = iter.snapshot().expect("a snapshot").to_vec();
        assert_eq!(items.iter().filter_map(|item| own.now(item)).count(), 0);
        let of_none = reader.read_thread(4_194_305).expect("descriptors");
        assert!(of_none.is_empty() && of_none.now(&items[0]).is_none());
    };
    std::thread::spawn(worker).join().expect("no panic");
}

fn what_cannot_be_found() -> Outcome {
    let idle = idle_process();
    let counter = counter();
    let me = process::id();
    for backend in BACKENDS {
        let mut finder = finder(backend);
        let survey = finder.find_in(idle.0.id())?;
        assert_eq!((&survey.sets[..], &survey.unseen[..]), (&[][..], &[][..]));
        let error = finder.find_in(4_194_305).unwrap_err();
        assert!(matches!(error, Error::NoSuchProcess { .. }), "{error:?}");
        let error = finder.find_thread(4_194_305).unwrap_err();
        assert!(matches!(error, Error::NoSuchProcess { .. }), "{error:?}");
        let error = finder.find_fd(me, counter.as_raw_fd()).unwrap_err();
        assert!(matches!(error, Error::NotAnEpoll { .. }), "{error:?}");
        let error = finder.find_fd(me, 19_999).unwrap_err();
        assert!(matches!(error, Error::NoSuchDescriptor { .. }), "{error:?}");
        let options = || EpollIter::options().backend(backend);
        let error = options().attach_tid(4_194_305, 3).unwrap_err();
        assert!(matches!(error, Error::NoSuchProcess { .. }), "{error:?}");
        let error = options().attach_tid(me, counter.as_raw_fd()).unwrap_err();
        assert!(matches!(error, Error::NotAnEpoll { .. }), "{error:?}");
    }
    done()
}
