//! Processes that share rings by fork(2), and other users and namespaces: each is asked
//! for what it has itself.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};

use serde_json::{json, Value};
use uring_testkit::{fork_holder, in_forked_child, BufSpec, RingBuilder, Workload};

use super::inner::expect_done;
use super::oracle::children_of;
use super::results::skip;
use super::run::{again, in_pid_namespace, output, spawn, tool, workload, Killed};
use super::{done, Outcome};

trials![
    a_worker_that_registered_its_file,
    many_holders_of_many_rings,
    limits_that_differ,
    a_holder_in_another_pid_namespace,
];

/// As many as a PostgreSQL for 100 connections has, in so many processes.
const RINGS: usize = 142;
const HOLDERS: usize = 15;

/// A user that no other trial has.
const USER: u32 = 64_123;

/// The standard output of the tool, which has nothing to complain of.
#[track_caller]
fn told(args: &str) -> String {
    let ran = output(Command::new(tool()).args(args.split_whitespace()));
    let end = (ran.status.code(), &ran.stderr[..]);
    assert_eq!(end, (Some(0), ""), "{args}");
    ran.stdout
}

#[track_caller]
fn lines(args: &str) -> Vec<Value> {
    let told = told(&format!("{args} --format json"));
    let lines = told.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("JSON")
}

fn a_worker_that_registered_its_file() -> Outcome {
    expect_done(&mut again("forked-worker"));
    done()
}

/// A child has a file open that its parent has not, and registers it with the ring that
/// both hold.
pub(crate) fn inside_worker() {
    let parent = std::process::id();
    let mut ring = RingBuilder::new(8).build().expect("ring");
    ring.register_files_sparse(2).expect("register");
    let worker = || {
        let file = File::open("/etc/hostname").expect("open");
        let path = fs::canonicalize("/etc/hostname").expect("a path");
        let slot = Some((file.as_fd(), 0));
        ring.update_files(0, &[slot]).expect("update");
        ring.register(&[BufSpec::new(4096)]).expect("register");
        let (me, number) = (std::process::id(), file.as_raw_fd());
        for pid in [me, parent] {
            let files = lines(&format!("files --paths --pid {pid}"));
            let [of_ring, of_file] = &files[..] else {
                panic!("one ring, one file: {files:#?}");
            };
            assert_eq!(of_ring["holders"].as_array().map(Vec::len), Some(2));
            assert_eq!(
                (&of_file["pid"], &of_file["owner_pid"]),
                (&json!(pid), &json!(pid))
            );
            let fds = if pid == me {
                json!([number])
            } else {
                json!([])
            };
            assert_eq!(of_file["owner_fds"], fds, "process {pid}");
            if pid == me {
                assert_eq!(of_file["path"], json!(path), "{of_file}");
            }
            let bufs = lines(&format!("bufs --pid {pid}"));
            assert_eq!(bufs[1]["pid"], json!(pid));
        }
    };
    assert!(
        in_forked_child(worker).expect("fork"),
        "the child has failed"
    );
}

/// Many rings with nothing registered, each held by many processes.
pub(crate) fn inside_holders() {
    let rings: Vec<_> = (0..RINGS)
        .map(|_| RingBuilder::new(1).build().expect("ring"))
        .collect();
    for _ in 1..HOLDERS {
        fork_holder().expect("fork");
    }
    println!("{}", rings.len());
    std::io::read_to_string(std::io::stdin()).expect("stdin");
}

fn many_holders_of_many_rings() -> Outcome {
    let mut command = again("many-holders");
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut parent = Killed(spawn(command)?);
    let mut line = String::new();
    BufReader::new(parent.0.stdout.take().expect("piped")).read_line(&mut line)?;
    assert_eq!(line.trim(), RINGS.to_string());
    let pid = parent.0.id();
    let child = *children_of(pid).first().expect("children");
    for pid in [pid, child] {
        for (what, name) in [("bufs", "buffers"), ("files", "files")] {
            let told = told(&format!("{what} --pid {pid}"));
            let few = told.lines().count() < 10;
            assert!(few, "{} lines", told.lines().count());
            let bare = format!("{RINGS} rings have no registered {name}");
            assert!(told.contains(&bare), "{told}");
        }
        let list = told(&format!("list --pid {pid}"));
        let shown = list
            .lines()
            .filter(|line| line.contains(&format!(" {pid} ")));
        assert_eq!(shown.count(), RINGS, "{list}");
        let rings = lines(&format!("list --pid {pid}"));
        assert_eq!(rings.len(), RINGS);
        let holders = |ring: &Value| ring["holders"].as_array().map(Vec::len);
        assert!(rings.iter().all(|ring| holders(ring) == Some(HOLDERS)));
    }
    // Of one that is asked for, all is shown.
    let fd = lines(&format!("list --pid {pid}"))[0]["holders"][0]["fd"].clone();
    let one = told(&format!("bufs --pid {child} --fd {fd}"));
    assert!(one.contains("0 buffers in 0 slots"), "{one}");
    assert!(one.contains(&format!("[{child}]")), "{one}");
    assert!(
        one.contains(&format!("and {} more", HOLDERS - 1 - 4)),
        "{one}"
    );
    done()
}

/// A process of the user that has a ring, under this limit.
fn limited(mebibytes: u64) -> Killed {
    let mut command = Command::new("prlimit");
    command.arg(format!("--memlock={}", mebibytes << 20));
    command.arg(Workload::binary().expect("the workload"));
    command.args(["--rings", "1", "--bufs", "1", "--uid", &USER.to_string()]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut load = Killed(spawn(command).expect("prlimit"));
    let mut line = String::new();
    let stdout = load.0.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    assert!(line.starts_with('{'), "{line}");
    load
}

fn limits_that_differ() -> Outcome {
    let of_user = || {
        // Of the whole machine, where other rings come and go.
        let told = output(Command::new(tool()).arg("bufs")).stdout;
        let start = format!("uid {USER}:");
        let line = told.lines().find(|line| line.starts_with(&start));
        line.unwrap_or_else(|| panic!("no line of the user: {told}"))
            .to_owned()
    };
    let _more = [limited(3), limited(3)];
    let same = of_user();
    assert!(same.ends_with("RLIMIT_MEMLOCK 3 MiB"), "{same}");
    let less = limited(2);
    let least = format!("RLIMIT_MEMLOCK 2 MiB (process {}) to 3 MiB", less.0.id());
    let other = of_user();
    assert!(other.ends_with(&least), "{other}");
    done()
}

fn a_holder_in_another_pid_namespace() -> Outcome {
    if !in_pid_namespace("true").status()?.success() {
        return skip("no pid namespace can be made here");
    }
    let mut command = in_pid_namespace(Workload::binary()?);
    command.args(["--rings", "1"]).stdin(Stdio::piped());
    let mut unshare = Killed(command.stdout(Stdio::piped()).spawn()?);
    let mut line = String::new();
    BufReader::new(unshare.0.stdout.take().expect("piped")).read_line(&mut line)?;
    let children = children_of(unshare.0.id());
    let pid = *children.first().expect("unshare has one child");
    let holder = &lines(&format!("list --pid {pid}"))[0]["holders"][0];
    assert_eq!(
        (&holder["pid"], &holder["ns_pid"]),
        (&json!(pid), &json!(1))
    );
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = holder["cgroup"].as_str();
    match path {
        Some(path) => assert!(cgroup
            .lines()
            .any(|line| line.ends_with(&format!(":{path}")))),
        None => assert_eq!(cgroup, ""),
    }
    let list = told(&format!("list --pid {pid}"));
    let (header, row) = list.split_once('\n').expect("two lines");
    let at = header.split("  ").filter(|name| !name.is_empty());
    assert!(at.clone().any(|name| name.trim() == "NSPID"), "{list}");
    assert!(row.split_whitespace().any(|cell| cell == "1"), "{list}");
    let own = workload("--rings 1");
    let list = told(&format!("list --pid {}", own.pid()));
    assert!(!list.contains("NSPID"), "{list}");
    done()
}
