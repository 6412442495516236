//! Pid namespaces: from above a ring has the numbers of above; from inside
//! only the namespace's own rings are there, with its own numbers.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use uring_bpf_iter::{Backend, Contention, Error, RingFinder, UringBufReader, Via};
use uring_testkit::{BufSpec, LockHolder, ProgramRuns, Report, RingBuilder, Workload};

use super::oracle::{
    assert_reads, assert_ring, attach, by_inode, children_of, finder, no_locked_reads, rings_of,
    status, Way,
};
use super::results::skip;
use super::run::{again, in_pid_namespace, output, tool, workload, Killed};
use super::{done, inner, Outcome};

trials![
    seen_from_above,
    seen_from_inside,
    a_number_that_is_another_process_outside
];

/// Why there are no namespaces here, if so.
fn missing() -> Option<String> {
    let mut probe = in_pid_namespace("true");
    let probe = probe.stderr(Stdio::null()).status();
    match probe {
        Ok(status) if status.success() => None,
        Ok(status) => Some(format!("unshare --pid --mount-proc: {status}")),
        Err(e) => Some(format!("unshare of util-linux: {e}")),
    }
}

fn seen_from_above() -> Outcome {
    if let Some(reason) = missing() {
        return skip(reason);
    }
    for extra in ["", "--no-fd", "--mapping-only", "--hold-lock"] {
        let mut command = in_pid_namespace(Workload::binary()?);
        command.args(["--rings", "3", "--bufs", "6", "--tag", "9"]);
        command.args(extra.split_whitespace());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut unshare = Killed(command.spawn()?);
        let mut line = String::new();
        BufReader::new(unshare.0.stdout.take().expect("piped")).read_line(&mut line)?;
        let report: Report = serde_json::from_str(&line)?;
        assert_eq!(report.pid, 1, "its number inside");
        // Its number here, by /proc.
        let children = children_of(unshare.0.id());
        let pid = *children.first().expect("unshare has one child");
        let numbers = status(pid, "NSpid");
        assert_eq!(
            numbers.split_whitespace().collect::<Vec<_>>(),
            [&pid.to_string(), "1"]
        );

        let rings = rings_of(Backend::TaskFile, pid);
        assert_eq!(rings.len(), 3, "{extra}");
        for (at, report) in report.rings.iter().enumerate() {
            let ring = match report.inode {
                Some(inode) => by_inode(&rings, inode),
                None => &rings[at],
            };
            assert_eq!((ring.owner().pid, ring.owner().tid), (pid, pid), "{extra}");
            let mut iter = Way::TaskFile.options().attach_ring(ring)?;
            if extra == "--hold-lock" {
                let Err(Error::Contended { why, .. }) = iter.snapshot().map(drop) else {
                    panic!("the lock is held");
                };
                let Contention::LockHeld(owner) = &why else {
                    panic!("{why:?}");
                };
                assert_eq!(owner.pid, Some(pid), "{why:?}");
                let thread = format!("/proc/{pid}/task/{}", owner.tid.expect("a number here"));
                assert!(fs::exists(&thread)?, "{thread}");
                continue;
            }
            assert_reads(Way::TaskFile, &mut iter, &report.expected());
            if let Some(fd) = report.fd {
                assert_eq!(ring.owner().via, Via::Descriptor(fd));
                assert_ring(pid, fd, &report.expected());
            }
        }
    }
    done()
}

fn seen_from_inside() -> Outcome {
    if let Some(reason) = missing() {
        return skip(reason);
    }
    let load = workload("--rings 1 --bufs 2");
    let foreign = load.report().rings[0].inode.expect("an inode");
    let again = again("namespace");
    let mut command = in_pid_namespace(again.get_program());
    command.env(inner::MODE, "namespace");
    command.env(inner::FOREIGN, format!("{foreign} {}", load.pid()));
    inner::expect_done(&mut command);
    // The foreign ring was there all the time.
    by_inode(&RingFinder::new()?.find_all()?.rings, foreign);
    done()
}

/// Runs in the namespace.
pub(super) fn inside() {
    let [foreign_ring, foreign_pid] = inner::foreign()[..] else {
        panic!("two numbers");
    };
    let me = std::process::id();
    assert_eq!(me, 1, "alone in a namespace");
    let load = workload("--rings 3 --bufs 6 --tag 9");
    let held = workload("--rings 1 --no-fd --bufs 2");
    assert!(load.pid() < 100, "{}", load.pid());
    let mut own = RingBuilder::new(8).build().expect("ring");
    own.register(&[BufSpec::new(700).at(9); 4])
        .expect("register");

    let mut inodes: BTreeSet<u64> = load.report().rings.iter().flat_map(|r| r.inode).collect();
    inodes.insert(own.inode().expect("an inode"));
    for backend in [Backend::TaskFile, Backend::Fdinfo] {
        let all = finder(backend).find_all().expect("find").rings;
        let seen: BTreeSet<u64> = (all.iter())
            .filter(|ring| ring.owner().fd().is_some())
            .map(|ring| ring.inode)
            .collect();
        assert_eq!(seen, inodes, "{backend}: its own and no other");
        assert!(!seen.contains(&foreign_ring));
        for ring in &all {
            let holder = ring.owner();
            assert!(
                [me, load.pid(), held.pid()].contains(&holder.pid),
                "{ring:?}"
            );
        }
        let without = all.iter().filter(|ring| ring.owner().pid == held.pid());
        assert_eq!(without.count(), usize::from(backend == Backend::TaskFile));
        if foreign_pid > 100 {
            let error = finder(backend).find_in(foreign_pid as u32).unwrap_err();
            assert!(matches!(error, Error::NoSuchProcess { .. }), "{error:?}");
        }
    }

    // Every way of reading, also under the lock.
    assert_ring(me, own.raw_fd(), own.expected());
    for ring in &load.report().rings {
        assert_ring(load.pid(), ring.fd.expect("a descriptor"), &ring.expected());
    }
    let ring = rings_of(Backend::TaskFile, held.pid()).remove(0);
    let mut iter = Way::TaskFile.options().attach_ring(&ring).expect("attach");
    assert_reads(Way::TaskFile, &mut iter, &held.report().rings[0].expected());

    // The owner of a lock has the number of in here.
    if let Ok(_held) = LockHolder::hold(&own) {
        let mut iter = attach(Way::TaskFile, me, own.raw_fd());
        let error = iter.snapshot_locked(Duration::from_millis(200)).map(drop);
        match &error {
            Err(Error::Contended {
                why: Contention::LockHeld(owner),
                ..
            }) => assert_eq!(owner.pid, Some(me), "{error:?}"),
            Err(Error::Unsupported { .. }) if no_locked_reads().is_some() => {}
            _ => panic!("{error:?}"),
        }
    }
    tool_inside(&inodes, &[me, load.pid(), held.pid()]);
}

/// The same number, with a ring under the same descriptor.
fn a_number_that_is_another_process_outside() -> Outcome {
    if let Some(reason) = missing() {
        return skip(reason);
    }
    let load = workload("--rings 1 --bufs 2");
    let fd = load.report().rings[0].fd.expect("a descriptor");
    let again = again("same-number");
    let mut command = in_pid_namespace(again.get_program());
    command.env(inner::MODE, "same-number");
    command.env(inner::FOREIGN, format!("{} {fd}", load.pid()));
    inner::expect_done(&mut command);
    // It was there all the time.
    assert_ring(load.pid(), fd, &load.report().rings[0].expected());
    done()
}

/// Runs in the namespace.
pub(super) fn inside_same_number() {
    let [foreign_pid, foreign_fd] = inner::foreign()[..] else {
        panic!("two numbers");
    };
    // The next process gets the number after this one, if no other was made meanwhile.
    let load = loop {
        fs::write(
            "/proc/sys/kernel/ns_last_pid",
            format!("{}", foreign_pid - 1),
        )
        .expect("ns_last_pid (CONFIG_CHECKPOINT_RESTORE)");
        let load = workload("--rings 1 --bufs 5");
        if u64::from(load.pid()) == foreign_pid {
            break load;
        }
    };
    let report = &load.report().rings[0];
    assert_eq!(report.fd.expect("a descriptor") as u64, foreign_fd);
    let ring = rings_of(Backend::TaskFile, load.pid()).remove(0);
    assert_ring(load.pid(), foreign_fd as i32, &report.expected());
    let runs = ProgramRuns::count().expect("run counts");
    let mut reader = UringBufReader::options()
        .backend(Backend::TaskFile)
        .reader();
    let mut read = || assert_eq!(reader.snapshot(&ring).expect("snapshot").len(), 5);
    read();
    // Found where it is, or else one run would be for nothing.
    let before = runs.so_far().expect("/proc");
    read();
    let ran = runs.so_far().expect("/proc") - before;
    match by_one_call() {
        true => assert_eq!(ran, 1),
        // An iterator is told of its end, too.
        false => assert_eq!(ran, 2),
    }
}

/// Whether a program finds a task by the number that it has in here.
fn by_one_call() -> bool {
    let symbols = fs::read_to_string("/proc/kallsyms").expect("/proc/kallsyms");
    symbols
        .lines()
        .any(|line| line.ends_with(" bpf_task_from_vpid"))
}

fn tool_inside(inodes: &BTreeSet<u64>, pids: &[u32]) {
    for name in ["list", "bufs"] {
        let mut command = Command::new(tool());
        command.env_remove(inner::MODE);
        command.args([name, "--format", "json"]);
        let ran = output(&mut command);
        assert!(ran.status.success(), "{name}: {ran:?}");
        let mut seen = BTreeSet::new();
        for line in ran.stdout.lines() {
            let record: Value = serde_json::from_str(line).expect("JSON");
            if record["type"] != "ring" {
                continue;
            }
            let holder = &record["holders"][0];
            assert!(pids.iter().any(|pid| holder["pid"] == *pid), "{line}");
            if !holder["fd"].is_null() {
                seen.extend(record["ring"].as_u64());
            }
        }
        assert_eq!(&seen, inodes, "{name}");
    }
}
