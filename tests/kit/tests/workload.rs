//! The workload binary says the truth about itself: its report against the
//! kernel's words about another process.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use uring_testkit::{fdinfo, RingReport, Workload};

fn spawn(args: &str) -> Workload {
    Workload::spawn(args.split_whitespace()).unwrap_or_else(|e| panic!("workload {args}: {e}"))
}

#[track_caller]
fn check(pid: u32, ring: &RingReport) {
    let fd = ring.fd.expect("a descriptor");
    let seen = (0..1000).find_map(|_| {
        let seen = fdinfo::user_bufs(pid, fd).expect("fdinfo");
        seen.or_else(|| {
            thread::sleep(Duration::from_millis(1));
            None
        })
    });
    let range = |slot: &Option<uring_testkit::Registered>| slot.map(|buf| (buf.addr, buf.len));
    let expected: Vec<_> = ring.expected().iter().map(range).collect();
    assert_eq!(
        seen.expect("uring_lock was taken for a second"),
        expected,
        "{}",
        ring.kind
    );
    let inode = fs::metadata(format!("/proc/{pid}/fd/{fd}"))
        .expect("fd")
        .ino();
    assert_eq!(Some(inode), ring.inode, "{}", ring.kind);
}

#[test]
fn plain_rings() {
    let workload = spawn("--rings 3 --bufs 5 --len 1000 --offset 8 --tag 50 --files 2");
    let report = workload.report();
    assert_eq!((report.pid, report.rings.len()), (workload.pid(), 3));
    for ring in &report.rings {
        check(report.pid, ring);
        let tags: Vec<_> = ring
            .bufs
            .iter()
            .flatten()
            .map(|b| (b.index, b.buf.tag))
            .collect();
        assert_eq!(tags, [(0, 50), (1, 51), (2, 52), (3, 53), (4, 54)]);
        assert_eq!(ring.nr_files, 2);
    }
}

#[test]
fn every_setup() {
    let kinds = "plain iopoll sqpoll defer-taskrun coop-taskrun disabled sqe128 cqe32";
    for kind in kinds.split(' ') {
        let workload = spawn(&format!("--setup {kind}"));
        let [ring] = &workload.report().rings[..] else {
            panic!("one ring")
        };
        assert_eq!(ring.kind, kind);
        check(workload.pid(), ring);
    }
}

#[test]
fn the_demo_has_two_holders() {
    let workload = spawn("--preset demo");
    let report = workload.report();
    assert!(report.rings.len() >= 7, "{report:?}");
    let [child] = report.children[..] else {
        panic!("one child")
    };
    for ring in &report.rings {
        check(report.pid, ring);
        check(child, ring);
    }
    let locked: u64 = (report
        .rings
        .iter()
        .flat_map(|ring| ring.expected())
        .flatten())
    .map(|buf| buf.len.next_multiple_of(4096))
    .sum();
    assert!(locked < 4 << 20, "{locked} bytes");
    drop(workload);
    let gone = (0..200).any(|_| {
        thread::sleep(Duration::from_millis(10));
        fs::read_dir(format!("/proc/{child}/fd")).map_or(true, |mut fds| fds.next().is_none())
    });
    assert!(gone, "the child outlived its parent");
}

#[test]
fn duplicates_sparse_tables_and_lost_memory() {
    let workload = spawn("--dup --sparse 100 --bufs 10 --drop-mapping");
    let [ring] = &workload.report().rings[..] else {
        panic!("one ring")
    };
    check(workload.pid(), ring);
    check(
        workload.pid(),
        &RingReport {
            fd: Some(ring.dup_fds[0]),
            ..ring.clone()
        },
    );
    assert_eq!(ring.bufs.len(), 100);
    assert!(ring.bufs[90].is_some() && ring.bufs[91].is_none());

    let addr = ring.bufs[90].expect("filled").buf.addr;
    let maps = fs::read_to_string(format!("/proc/{}/maps", workload.pid())).expect("maps");
    let mapped = maps.lines().any(|line| {
        let (start, rest) = line.split_once('-').expect("a range");
        let end = rest.split(' ').next().expect("a range");
        let parse = |s| u64::from_str_radix(s, 16).expect("an address");
        (parse(start)..parse(end)).contains(&addr)
    });
    assert!(!mapped, "{addr:#x} in {maps}");
}

#[test]
fn rings_without_descriptor() {
    let has_uring_fd = |pid| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).expect("fds");
        fds.flatten().any(|fd| {
            fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == "anon_inode:[io_uring]")
        })
    };
    let maps = |pid| fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps");

    let workload = spawn("--no-fd --bufs 2");
    let ring = &workload.report().rings[0];
    assert!(ring.fd.is_none() && ring.registered_index.is_some() && ring.inode.is_none());
    assert!(!has_uring_fd(workload.pid()) && !maps(workload.pid()).contains("[io_uring]"));

    let workload = spawn("--mapping-only --bufs 2");
    let ring = &workload.report().rings[0];
    assert!(ring.fd.is_none() && ring.registered_index.is_none());
    assert!(!has_uring_fd(workload.pid()));
    let line = format!("{:x}-", ring.mapping);
    let maps = maps(workload.pid());
    let line = maps.lines().find(|l| l.starts_with(&line)).expect("mapped");
    assert!(
        line.contains(&format!(" {} ", ring.inode.expect("had one"))),
        "{line}"
    );
}

#[test]
fn another_user() {
    for when in ["before", "after"] {
        let workload = spawn(&format!("--uid 65534 --uid-when {when} --bufs 4"));
        let status = fs::read_to_string(format!("/proc/{}/status", workload.pid())).unwrap();
        assert!(status.contains("Uid:\t65534\t65534\t65534"), "{status}");
        check(workload.pid(), &workload.report().rings[0]);
    }
}

#[test]
fn an_unprivileged_demo() {
    let workload = spawn("--preset demo --uid 65534");
    for ring in &workload.report().rings {
        check(workload.pid(), ring);
    }
}

#[test]
fn a_killed_holder_leaves_no_lock_behind() {
    let workload = spawn("--rings 2 --hold-lock");
    for ring in &workload.report().rings {
        let fd = ring.fd.expect("a descriptor");
        assert_eq!(fdinfo::user_bufs(workload.pid(), fd).expect("fdinfo"), None);
    }
    let (ended, waits) = mpsc::channel();
    thread::spawn(move || {
        drop(workload);
        ended.send(())
    });
    waits
        .recv_timeout(Duration::from_secs(10))
        .expect("killed while it held locks");
}

#[test]
fn it_ends_with_its_standard_input() {
    for args in ["--fork", "--hold-lock", "--no-fd"] {
        assert!(spawn(args).finish().expect("wait").success(), "{args}");
    }
}

#[test]
fn a_workload_that_fails_says_so() {
    let error = Workload::spawn(["--len", "0"]).unwrap_err();
    assert!(error.to_string().contains("without a report"), "{error}");
}
