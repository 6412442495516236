//! A user without rights: fdinfo serves, and each refusal names its reason.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use uring_bpf_iter::{
    Backend, Capability, EpollFinder, EpollIter, EpollReader, Error, Reason, RingFinder, Selection,
    UringBufIter,
};
use uring_testkit::{BufSpec, EpollSet, RingBuilder, Workload};

use super::oracle::{assert_reads, by_inode, finder, status, Way};
use super::run::{for_everyone, output, workload, NOBODY};
use super::{done, inner, Outcome};

trials![
    fdinfo_serves_and_refusals_have_reasons,
    this_suite_fails_loudly,
];

/// This program as a user without rights.
fn as_nobody() -> Command {
    let me = std::env::current_exe().expect("my own path");
    let mut command = Command::new(for_everyone(&me));
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    // It runs trials, too, and they are none of this run.
    command.env_remove(super::results::FILE);
    let workload = Workload::binary().expect("the workload");
    command.env("URING_WORKLOAD", for_everyone(&workload));
    command
}

fn fdinfo_serves_and_refusals_have_reasons() -> Outcome {
    let root = workload("--rings 1 --bufs 2");
    let fd = root.report().rings[0].fd.expect("a descriptor");
    let mut command = as_nobody();
    command.env(inner::MODE, "unprivileged");
    command.env(inner::FOREIGN, format!("{} {fd}", root.pid()));
    inner::expect_done(&mut command);
    done()
}

fn this_suite_fails_loudly() -> Outcome {
    let ran = output(as_nobody().args(["--exact", "tables::no_table"]));
    assert_eq!(ran.status.code(), Some(101), "{ran:?}");
    assert!(ran.stdout.contains("Run the suite as root"), "{ran:?}");
    assert!(ran.stdout.contains("CAP_BPF"), "{ran:?}");
    done()
}

#[track_caller]
fn assert_missing(reason: &Reason) {
    let Reason::MissingCapability(which) = reason else {
        panic!("{reason:?}");
    };
    assert_eq!(which, &[Capability::Bpf, Capability::Perfmon]);
    assert!(
        reason.to_string().contains("CAP_BPF and CAP_PERFMON"),
        "{reason}"
    );
    assert!(reason.to_string().contains("run it as root"), "{reason}");
}

#[track_caller]
fn assert_fdinfo(selection: &Selection) {
    assert_eq!(selection.backend, Backend::Fdinfo);
    let [native, task_file] = &selection.refused[..] else {
        panic!("{selection:?}");
    };
    assert_eq!(native.backend, Backend::Native);
    assert_eq!(task_file.backend, Backend::TaskFile);
    assert_missing(&task_file.reason);
}

#[track_caller]
fn assert_refused(error: Error) {
    let Error::NoBackend { refusals } = &error else {
        panic!("{error:?}");
    };
    let [refusal] = &refusals[..] else {
        panic!("{error:?}");
    };
    assert_eq!(refusal.backend, Backend::TaskFile);
    assert_missing(&refusal.reason);
    let text = error.to_string().to_lowercase();
    assert!(text.contains("cap_bpf"), "{text}");
    assert!(
        !text.contains("unsupported") && !text.contains("not support"),
        "{text}"
    );
}

/// Runs as that user.
pub(super) fn inside() {
    let me = std::process::id();
    assert_eq!(
        status(me, "CapEff").trim_start_matches('0'),
        "",
        "no rights"
    );
    let mut ring = RingBuilder::new(8).build().expect("ring");
    ring.register_tagged(&[BufSpec::new(3000).at(2000).tagged(5); 7])
        .expect("register");

    let mut iter = UringBufIter::attach(&ring).expect("auto");
    assert_fdinfo(iter.selection());
    assert_reads(Way::Fdinfo, &mut iter, ring.expected());
    let bufs = iter
        .snapshot_locked(Duration::from_secs(1))
        .expect("locked");
    assert_eq!(bufs.len(), 7);

    let by_name = || UringBufIter::options().backend(Backend::TaskFile);
    assert_refused(by_name().attach(&ring).map(drop).unwrap_err());
    assert_refused(
        RingFinder::with_backend(Backend::TaskFile)
            .map(drop)
            .unwrap_err(),
    );

    let load = workload("--rings 2 --bufs 3");
    let mut search = RingFinder::new().expect("auto");
    assert_fdinfo(search.selection());
    let survey = search.find_all().expect("find");
    assert_eq!(
        by_inode(&survey.rings, ring.inode().unwrap()).owner().pid,
        me
    );
    for report in &load.report().rings {
        let found = by_inode(&survey.rings, report.inode.unwrap());
        assert_eq!(found.owner().uid, NOBODY);
        let mut iter = UringBufIter::attach_ring(found).expect("auto");
        assert_reads(Way::Fdinfo, &mut iter, &report.expected());
        // Also by a copy of the descriptor of one's own child.
        let mut iter = UringBufIter::attach_pid(load.pid(), report.fd.unwrap()).expect("auto");
        assert_reads(Way::Fdinfo, &mut iter, &report.expected());
    }

    let [root, fd] = inner::foreign()[..] else {
        panic!("two numbers");
    };
    foreign(root as u32, fd as i32);
    epoll_sets(root as u32);
    let unseen = survey
        .unseen
        .iter()
        .find(|unseen| u64::from(unseen.pid) == root);
    assert!(unseen.is_some(), "what could not be looked at is named");
    assert!(survey
        .rings
        .iter()
        .all(|ring| ring.holder(root as u32, None).is_none()));
}

/// Sets of one's own are found, and whom one may not look at is named.
fn epoll_sets(root: u32) {
    let me = std::process::id();
    let set = EpollSet::new().expect("an epoll set");
    let dup = set.as_fd().try_clone_to_owned().expect("dup");
    let mut finder = EpollFinder::new().expect("auto");
    assert_fdinfo(finder.selection());
    assert_refused(
        EpollFinder::with_backend(Backend::TaskFile)
            .map(drop)
            .unwrap_err(),
    );
    let survey = finder.find_all().expect("find");
    let found = survey.sets.iter();
    let found: Vec<_> = found.filter(|set| set.holder(me, None).is_some()).collect();
    let [found] = &found[..] else {
        panic!("a dup is the same set: {found:?}");
    };
    assert!(found.holder(me, Some(dup.as_raw_fd())).is_some());
    assert_eq!(found.owner().uid, NOBODY);
    let items = EpollReader::new().snapshot(found).expect("auto").len();
    assert_eq!(items, 0);
    assert!(survey.unseen.iter().any(|unseen| unseen.pid == root));
    for error in [
        finder.find_in(root).map(drop).unwrap_err(),
        finder.find_fd(root, 0).map(drop).unwrap_err(),
        EpollIter::attach_tid(root, 0).map(drop).unwrap_err(),
    ] {
        assert!(matches!(error, Error::NotPermitted { .. }), "{error:?}");
    }
}

fn foreign(pid: u32, fd: i32) {
    for backend in [None, Some(Backend::Fdinfo)] {
        let options = UringBufIter::options().backend(backend);
        for error in [
            options.attach_pid(pid, fd).map(drop).unwrap_err(),
            finder(backend).find_in(pid).map(drop).unwrap_err(),
            finder(backend).find_fd(pid, fd).map(drop).unwrap_err(),
        ] {
            let Error::NotPermitted { needs, source, .. } = &error else {
                panic!("{error:?}");
            };
            assert!(needs.to_string().contains("CAP_SYS_PTRACE"), "{error}");
            assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied);
            assert!(!error.is_retryable());
        }
    }
}
