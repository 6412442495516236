//! What `uringctl epoll` prints, and how it ends, against what was added.

use std::os::fd::{AsFd, AsRawFd};
use std::process;

use rustix::event::{eventfd, EventfdFlags};
use serde_json::{json, Value};
use uring_bpf_iter::Backend;
use uring_testkit::{EpollItem, EpollSet, LockHolder};

use super::epoll::backends;
use super::files::kind;
use super::oracle::has_native;
use super::run::{idle_process, Output};
use super::tool::run;
use super::{done, Outcome};

trials![
    items_as_json,
    items_as_a_table,
    all_sets_of_a_process,
    how_it_ends,
    a_busy_set,
];

const ET_IN: u32 = 1 << 31 | 1;

fn set() -> EpollSet {
    let mut set = EpollSet::new().expect("an epoll set");
    let (read, write) = rustix::pipe::pipe().expect("a pipe");
    set.keep(read, ET_IN, u64::MAX).expect("add");
    set.keep(write, 4, 7).expect("add");
    let counters = (0..3).map(|_| eventfd(1, EventfdFlags::CLOEXEC).expect("eventfd"));
    set.keep_under_one_number(counters, 1, 100).expect("add");
    set
}

pub(super) fn items(args: &str) -> Output {
    run("epoll", args)
}

#[track_caller]
pub(super) fn records(ran: &Output) -> Vec<Value> {
    let lines = ran.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

/// What there is of one set: its head, and its items.
#[track_caller]
fn assert_set(records: &[Value], set: &EpollSet, backend: Backend) {
    let fd = json!(set.as_fd().as_raw_fd());
    let of_set: Vec<&Value> = records.iter().filter(|r| r["epoll_fd"] == fd).collect();
    let (head, shown) = of_set.split_first().expect("a head");
    assert_eq!(
        (&head["type"], &head["pid"]),
        (&json!("epoll"), &json!(process::id()))
    );
    assert_eq!(head["backend"], backend.to_string());
    assert_eq!(head["nr_items"], set.expected().len());
    let consistency = match backend {
        Backend::TaskFile => "verified",
        _ => "locked",
    };
    assert_eq!(head["consistency"], consistency);
    assert_eq!(shown.len(), set.expected().len());
    for item in set.expected() {
        let found = shown.iter().find(|record| record["data"] == item.data);
        let record = found.unwrap_or_else(|| panic!("{item:?} is not shown"));
        assert_item(record, item, backend);
    }
}

#[track_caller]
fn assert_item(record: &Value, item: &EpollItem, backend: Backend) {
    assert_eq!(record["type"], "item");
    assert_eq!(
        (&record["fd"], &record["events"]),
        (&json!(item.fd), &json!(item.events))
    );
    let names = record["event_names"].as_array().expect("names");
    assert_eq!(names.len(), item.events.count_ones() as usize, "{record}");
    assert_eq!(names.contains(&json!("ET")), item.events >> 31 == 1);
    let (major, minor) = item.file.device;
    assert_eq!(record["inode"], item.file.inode);
    assert_eq!(record["device"], format!("{major}:{minor}"));
    assert_eq!(record["position"], 0);
    if backend == Backend::Fdinfo {
        assert_eq!(record["kind"], "unknown");
        assert_eq!(
            (&record["flags"], &record["mode"]),
            (&Value::Null, &Value::Null)
        );
    } else {
        assert_eq!(record["kind"], kind(&item.file).to_string());
        assert_eq!(record["mode"], item.file.mode);
    }
}

fn items_as_json() -> Outcome {
    let set = set();
    let (me, fd) = (process::id(), set.as_fd().as_raw_fd());
    for backend in backends() {
        let ran = items(&format!(
            "--pid {me} --fd {fd} --format json --backend {backend}"
        ));
        assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
        assert_set(&records(&ran), &set, backend);
    }
    done()
}

fn items_as_a_table() -> Outcome {
    let set = set();
    let (me, fd) = (process::id(), set.as_fd().as_raw_fd());
    let ran = items(&format!("--pid {me} --fd {fd}"));
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    let mut lines = ran.stdout.lines();
    let first = lines.next().expect("a line");
    for says in [
        format!("epoll set fd {fd}"),
        format!("[{me}]"),
        "5 items".into(),
    ] {
        assert!(first.contains(&says), "{first}");
    }
    assert!(lines.next().expect("a heading").contains("EVENTS"));
    let line = lines.find(|line| line.contains("0xffffffffffffffff"));
    let line = line.unwrap_or_else(|| panic!("{}", ran.stdout));
    assert!(
        line.contains("IN|ERR|HUP|ET") && line.contains("pipe"),
        "{line}"
    );
    done()
}

/// Trials at the same time have sets, too, and busy ones among them.
fn all_sets_of_a_process() -> Outcome {
    let sets = [set(), EpollSet::new()?, set()];
    let ran = items(&format!(
        "--pid {} --format json --backend task-file",
        process::id()
    ));
    assert!(matches!(ran.status.code(), Some(0 | 4)), "{ran:?}");
    for set in &sets {
        assert_set(&records(&ran), set, Backend::TaskFile);
    }
    let idle = idle_process();
    let ran = items(&format!("--pid {}", idle.0.id()));
    assert_eq!((ran.status.code(), &*ran.stdout), (Some(0), ""), "{ran:?}");
    assert!(ran.stderr.contains("no epoll set"), "{ran:?}");
    done()
}

/// Nothing on stdout, a reason on stderr, and this code.
#[track_caller]
fn assert_ended(args: &str, code: i32, says: &str) {
    let ran = items(args);
    assert_eq!(
        (ran.status.code(), &*ran.stdout),
        (Some(code), ""),
        "{ran:?}"
    );
    assert!(ran.stderr.contains(says), "{says:?} is missing: {ran:?}");
}

fn how_it_ends() -> Outcome {
    let me = process::id();
    let counter = eventfd(0, EventfdFlags::CLOEXEC)?;
    let fd = counter.as_raw_fd();
    assert_ended("--fd 3", 2, "--pid");
    assert_ended("--watching 3", 2, "as 1234:5");
    assert_ended("--pid 1 --watch 0", 2, "--watch");
    assert_ended("--pid 4194305", 1, "no process 4194305");
    assert_ended(
        &format!("--pid {me} --fd {fd}"),
        1,
        "epoll set: it is anon_inode:[eventfd]",
    );
    assert_ended(&format!("--pid {me} --fd 19999"), 1, "no descriptor 19999");
    if !has_native() {
        let set = set();
        let fd = set.as_fd().as_raw_fd();
        assert_ended(
            &format!("--pid {me} --fd {fd} --backend native"),
            3,
            "target epoll",
        );
    }
    done()
}

fn a_busy_set() -> Outcome {
    let set = set();
    let (me, fd) = (process::id(), set.as_fd().as_raw_fd());
    let holder = LockHolder::hold_epoll(&set)?;
    let busy = format!("--pid {me} --fd {fd} --backend task-file --format json");
    assert_ended(&busy, 4, "lock-holder");
    let ran = items(&format!("{busy} --raw"));
    assert!(ran.status.success(), "{ran:?}");
    let records = records(&ran);
    assert_eq!(
        (records.len(), &records[0]["consistency"]),
        (1 + 5, &json!("raw"))
    );
    holder.release()?;
    done()
}
