//! `uringctl epoll` over processes, threads and the whole machine, and who watches a file.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{self, Command};

use rustix::event::{eventfd, EventfdFlags};
use serde_json::{json, Value};
use uring_testkit::EpollSet;

use super::epoll_sets::{Helper, BOTH};
use super::run::{for_everyone, output, tool, Output, NOBODY};
use super::tool_epoll::{items, records};
use super::{done, Outcome};

trials![
    a_leader_that_has_ended,
    threads_with_their_own_descriptors,
    a_dup_is_the_same_set,
    a_set_shared_by_fork,
    all_sets_of_the_machine,
    numbers_of_items_by_now,
    who_watches_a_file,
    who_watches_an_inode,
    nobody_watches_it,
    without_privilege,
];

const BACKENDS: [&str; 2] = ["task-file", "fdinfo"];

fn counter() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).expect("eventfd")
}

#[track_caller]
fn json_of(args: &str) -> Vec<Value> {
    let ran = items(&format!("{args} --format json"));
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    records(&ran)
}

/// Of the whole machine, where other trials have sets that are busy, and where a security
/// module may hide what a process has even from root.
#[track_caller]
fn machine(args: &str) -> Vec<Value> {
    let ran = items(&format!("{args} --format json"));
    assert!(matches!(ran.status.code(), Some(0 | 3 | 4)), "{ran:?}");
    records(&ran)
}

fn heads(records: &[Value]) -> Vec<&Value> {
    let all = records.iter();
    all.filter(|record| record["type"] == "epoll").collect()
}

/// True if this process holds the set. Between fork(2) and execve(2) a child of ours does,
/// too, which may be named first.
fn is_held_by(head: &Value, pid: u32) -> bool {
    let holders = head["holders"].as_array().expect("holders");
    holders.iter().any(|holder| holder["pid"] == pid)
}

fn a_leader_that_has_ended() -> Outcome {
    let helper = Helper::start("epoll-leaderless");
    let (pid, said) = (helper.pid(), &helper.said);
    for backend in BACKENDS {
        for args in [
            "",
            &format!("--fd {}", said[1]),
            &format!("--tid {}", said[0]),
        ] {
            let shown = json_of(&format!("--pid {pid} --backend {backend} {args}"));
            let [head, item] = &shown[..] else {
                panic!("{shown:?}");
            };
            assert_eq!((&head["pid"], &head["tid"]), (&json!(pid), &json!(said[0])));
            assert_eq!(head["epoll_fd"], said[1]);
            assert_eq!((&item["data"], &item["fd"]), (&json!(42), &json!(said[2])));
            let now = match backend {
                "task-file" => json!("same file"),
                _ => Value::Null,
            };
            assert_eq!(item["fd_now"], now, "{item}");
        }
    }
    let ran = items(&format!("--pid {pid}"));
    let first = format!("fd {} of ", said[1]);
    assert!(ran.stdout.contains(&first), "{ran:?}");
    assert!(
        ran.stdout.contains(&format!("thread {}", said[0])),
        "{ran:?}"
    );
    done()
}

fn threads_with_their_own_descriptors() -> Outcome {
    let helper = Helper::start("epoll-tables");
    let (pid, tid) = (helper.pid(), helper.said[0]);
    for backend in BACKENDS {
        let shown = json_of(&format!("--pid {pid} --fd {BOTH} --backend {backend}"));
        let of = |record: &Value| {
            let number = |key: &str| record[key].as_u64().expect("a number");
            (number("tid"), number("epoll_fd"))
        };
        let both = BOTH as u64;
        let heads: Vec<_> = heads(&shown).into_iter().map(of).collect();
        assert_eq!(heads, [(pid.into(), both), (tid.into(), both)], "{backend}");
        let items = shown.iter().filter(|record| record["type"] == "item");
        let items: Vec<_> = items.map(|item| (of(item).0, &item["data"])).collect();
        let want = [(pid.into(), &json!(1)), (tid.into(), &json!(2))];
        assert_eq!(items, want, "{backend}");
        let args = format!("--pid {pid} --tid {tid} --fd {BOTH} --backend {backend}");
        let shown = json_of(&args);
        assert_eq!(shown.len(), 2, "{shown:?}");
        assert_eq!(shown[0]["tid"], tid);
        assert_eq!(shown[1]["data"], 2);
    }
    let ran = items(&format!("--pid {pid} --tid {tid} --fd 19999"));
    assert_eq!((ran.status.code(), &*ran.stdout), (Some(1), ""), "{ran:?}");
    done()
}

fn a_dup_is_the_same_set() -> Outcome {
    let set = EpollSet::new()?;
    let dup = set.as_fd().try_clone_to_owned()?;
    let (me, first, second) = (process::id(), set.as_fd().as_raw_fd(), dup.as_raw_fd());
    let mut fds = [first, second];
    fds.sort_unstable();
    for backend in BACKENDS {
        for fd in fds {
            let shown = json_of(&format!("--pid {me} --fd {fd} --backend {backend}"));
            let [head] = &shown[..] else {
                panic!("{shown:?}");
            };
            assert_eq!(head["epoll_fds"], json!(fds), "{backend}");
            assert_eq!(head["epoll_fd"], fd);
        }
    }
    let ran = items(&format!("--pid {me} --fd {first}"));
    let says = format!("epoll set fd {},{} of ", fds[0], fds[1]);
    assert!(ran.stdout.starts_with(&says), "{ran:?}");
    done()
}

fn a_set_shared_by_fork() -> Outcome {
    let helper = Helper::start("epoll-forked");
    let (pid, child, fd) = (helper.pid(), helper.said[0], helper.said[1]);
    for backend in BACKENDS {
        for one in [pid, child] {
            let shown = json_of(&format!("--pid {one} --backend {backend}"));
            assert_eq!(heads(&shown).len(), 1, "{shown:?}");
            assert_eq!(shown[0]["pid"], one);
            let holders = shown[0]["holders"].as_array().expect("holders");
            let mut pids: Vec<&Value> = holders.iter().map(|holder| &holder["pid"]).collect();
            pids.sort_by_key(|pid| pid.as_u64() == Some(child.into()));
            assert_eq!(pids, [&json!(pid), &json!(child)], "{backend}");
            assert!(holders.iter().all(|holder| holder["fd"] == fd));
        }
    }
    let ran = items(&format!("--pid {pid}"));
    assert!(
        ran.stdout.contains(&format!(", also fd {fd} of ")),
        "{ran:?}"
    );
    assert!(ran.stdout.contains(&format!("[{child}]")), "{ran:?}");
    done()
}

fn all_sets_of_the_machine() -> Outcome {
    let helper = Helper::start("epoll-forked");
    let leaderless = Helper::start("epoll-leaderless");
    let shown = machine("--backend task-file");
    let heads = heads(&shown);
    for helper in [&helper, &leaderless] {
        let of = |head: &&&Value| is_held_by(head, helper.pid());
        assert_eq!(heads.iter().filter(of).count(), 1);
    }
    done()
}

fn numbers_of_items_by_now() -> Outcome {
    let mut set = EpollSet::new()?;
    let both = [counter(), counter()].map(|one| {
        let dup = one.try_clone().expect("dup");
        (one, dup)
    });
    let [(first, keeps_first), (second, keeps_second)] = both;
    let number = set.keep_under_one_number([first, second], 1, 100)?;
    let (me, fd) = (process::id(), set.as_fd().as_raw_fd());
    for backend in BACKENDS {
        let shown = json_of(&format!("--pid {me} --fd {fd} --backend {backend}"));
        let item = |data: u64| {
            let found = shown.iter().find(|record| record["data"] == data);
            found.expect("an item")
        };
        if backend == "fdinfo" {
            assert_eq!(
                (&item(100)["fd_now"], &item(100)["owner_fds"]),
                (&json!(null), &json!(null))
            );
            continue;
        }
        assert_eq!(item(100)["fd_now"], "another file");
        assert_eq!(item(101)["fd_now"], "same file");
        let has = |data, fd: i32| {
            let fds = item(data)["owner_fds"].as_array().expect("numbers");
            fds.contains(&json!(fd))
        };
        assert!(
            has(100, keeps_first.as_raw_fd()) && !has(100, number),
            "{shown:?}"
        );
        assert!(
            has(101, keeps_second.as_raw_fd()) && has(101, number),
            "{shown:?}"
        );
    }
    let ran = items(&format!("--pid {me} --fd {fd}"));
    assert!(ran.stdout.contains("another file"), "{ran:?}");
    done()
}

fn who_watches_a_file() -> Outcome {
    // All eventfds have the same inode.
    let counters = [counter(), counter()];
    let mut sets = [EpollSet::new()?, EpollSet::new()?];
    for (at, set) in sets.iter_mut().enumerate() {
        set.add(&counters[at], 1, at as u64)?;
        set.keep(counter(), 1, 77)?;
    }
    let me = process::id();
    for (at, (set, counter)) in sets.iter().zip(&counters).enumerate() {
        let dup = counter.try_clone()?;
        for fd in [counter.as_raw_fd(), dup.as_raw_fd()] {
            let shown = machine(&format!("--watching {me}:{fd}"));
            let [head, item] = &shown[..] else {
                panic!("one item of one set: {shown:?}");
            };
            assert_eq!(head["epoll_fd"], set.as_fd().as_raw_fd());
            assert!(is_held_by(head, me), "{head}");
            assert_eq!(head["nr_items"], 2);
            assert_eq!(item["data"], at);
        }
    }
    let ran = items(&format!("--watching {me}:19999"));
    assert_eq!((ran.status.code(), &*ran.stdout), (Some(1), ""), "{ran:?}");
    let ran = items("--watching 4194305:3");
    assert_eq!((ran.status.code(), &*ran.stdout), (Some(1), ""), "{ran:?}");
    // fdinfo does not tell one eventfd from another.
    let fd = counters[0].as_raw_fd();
    let ran = items(&format!("--watching {me}:{fd} --backend fdinfo"));
    assert_eq!((ran.status.code(), &*ran.stdout), (Some(3), ""), "{ran:?}");
    let leaderless = Helper::start("epoll-leaderless");
    let (pid, said) = (leaderless.pid(), &leaderless.said);
    let shown = machine(&format!("--watching {pid}:{}", said[2]));
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert_eq!(shown[0]["tid"], said[0]);
    done()
}

fn who_watches_an_inode() -> Outcome {
    let (left, right) = UnixStream::pair()?;
    let mut set = EpollSet::new()?;
    set.add(&left, 1, 5)?;
    let me = process::id();
    let inode = rustix::fs::fstat(&left)?.st_ino;
    for backend in BACKENDS {
        let shown = machine(&format!("--watching-inode {inode} --backend {backend}"));
        // Another file system may have the same number.
        let (head, item) = shown
            .iter()
            .zip(shown.iter().skip(1))
            .find(|(head, item)| head["type"] == "epoll" && item["kind"] != "regular")
            .unwrap_or_else(|| panic!("one item of one set: {shown:?}"));
        assert!(is_held_by(head, me), "{head}");
        assert_eq!(head["epoll_fd"], set.as_fd().as_raw_fd());
        assert_eq!((&item["data"], &item["inode"]), (&json!(5), &json!(inode)));
    }
    drop(right);
    done()
}

fn nobody_watches_it() -> Outcome {
    let helper = Helper::start("epoll-forked");
    let (pid, said) = (helper.pid(), &helper.said);
    let nothing = |args: &str, says: &str| {
        let ran = items(args);
        assert_eq!((ran.status.code(), &*ran.stdout), (Some(0), ""), "{ran:?}");
        assert!(ran.stderr.contains(says), "{says:?} is missing: {ran:?}");
    };
    let of = format!("no epoll set of process {pid} watches the file that is descriptor");
    nothing(
        &format!("--pid {pid} --watching {pid}:{}", said[3]),
        &format!("{of} {} of process {pid}", said[3]),
    );
    nothing(
        &format!("--pid {pid} --watching-inode 18446744073709551615"),
        &format!("no epoll set of process {pid} watches a file with inode"),
    );
    let ran = items(&format!("--pid {pid} --watching {pid}:{}", said[2]));
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    done()
}

/// What could not be looked at is not told as absence.
fn without_privilege() -> Outcome {
    let root = Helper::start("epoll-forked");
    let program = for_everyone(&tool());
    let nobody = |args: &str| -> Output {
        let mut command = Command::new(&program);
        command.arg("epoll").args(args.split_whitespace());
        output(command.uid(NOBODY).gid(NOBODY).current_dir("/"))
    };
    let pid = root.pid();
    for (args, says) in [
        ("--format json", "could not be inspected"),
        (
            "--watching-inode 18446744073709551615",
            "that could be read",
        ),
        (&format!("--pid {pid}"), "not permitted"),
        (
            &format!("--pid {pid} --fd {}", root.said[1]),
            "not permitted",
        ),
        (&format!("--watching {pid}:{}", root.said[2]), "CAP_BPF"),
        ("--backend task-file", "CAP_BPF"),
    ] {
        let ran = nobody(args);
        assert_eq!(ran.status.code(), Some(3), "{args}: {ran:?}");
        assert!(ran.stderr.contains(says), "{says:?} is missing: {ran:?}");
        assert!(!ran.stderr.contains("no epoll set watches"), "{ran:?}");
        assert!(!ran.stderr.contains("panicked"), "{ran:?}");
    }
    done()
}
