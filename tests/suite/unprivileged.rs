//! A user without rights: fdinfo serves, and each refusal names its reason.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{setxattr, XattrFlags};
use rustix::io::Errno;
use uring_bpf_iter::{
    Backend, Capability, EpollFinder, EpollIter, EpollReader, Error, Reason, RingFinder, Selection,
    UringBufIter,
};
use uring_testkit::{BufSpec, EpollSet, RingBuilder, Workload};

use super::oracle::{assert_reads, by_inode, finder, status, Way};
use super::results::skip;
use super::run::{for_everyone, output, tool, workload, NOBODY};
use super::{done, inner, Outcome};

trials![
    fdinfo_serves_and_refusals_have_reasons,
    this_suite_fails_loudly,
    the_capabilities_of_a_file_are_enough,
    root_of_a_user_namespace,
    lockdown_is_named,
    a_kernel_without_btf,
    processes_that_proc_hides,
    root_that_may_not_look_at_others,
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

/// A copy of the tool that has these capabilities by its file, capabilities(7).
fn tool_with_capabilities() -> Result<PathBuf, Errno> {
    /// `CAP_PERFMON` and `CAP_BPF`, include/uapi/linux/capability.h
    const BITS: u64 = 1 << 38 | 1 << 39;
    /// `VFS_CAP_REVISION_2`, and the bit for effective ones
    const MAGIC: u32 = 0x0200_0000 | 1;
    let shared = for_everyone(&tool());
    let copy = shared.with_file_name("uringctl-with-capabilities");
    std::fs::copy(&shared, &copy).expect("copy");
    let (low, high) = (BITS as u32, (BITS >> 32) as u32);
    // permitted and inheritable, low, then high
    let words = [MAGIC, low, 0, high, 0];
    let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let name = "security.capability";
    setxattr(&copy, name, &value, XattrFlags::empty()).map(|()| copy)
}

/// CAP_BPF and CAP_PERFMON by the program's file, and no other right: rings of others are
/// found and read.
fn the_capabilities_of_a_file_are_enough() -> Outcome {
    let root = workload("--rings 1 --bufs 2");
    let pid = root.pid().to_string();
    let program = match tool_with_capabilities() {
        Ok(program) => program,
        Err(Errno::OPNOTSUPP) => return skip("$TMPDIR keeps no capabilities of files"),
        Err(e) => panic!("setxattr: {e}"),
    };
    let ran = |args: &[&str]| {
        let mut command = Command::new(&program);
        let command = command.args(args).args(["--backend", "task-file"]);
        output(command.uid(NOBODY).gid(NOBODY).current_dir("/"))
    };
    let bufs = ran(&["bufs", "--format", "json", "--pid", &pid]);
    let end = (bufs.status.code(), &bufs.stderr[..]);
    assert_eq!(end, (Some(0), ""), "{bufs:?}");
    assert_eq!(bufs.stdout.lines().count(), 1 + 2, "{bufs:?}");
    let all = ran(&["list"]);
    assert!(all.stdout.contains(&pid), "{all:?}");
    if super::oracle::no_locked_reads().is_none() {
        let locked = ran(&["bufs", "--locked", "--pid", &pid]);
        assert_eq!(locked.status.code(), Some(3), "{locked:?}");
        assert!(locked.stderr.contains("CAP_SYS_PTRACE"), "{locked:?}");
    }
    done()
}

/// Runs the tool where this shell script has changed something before.
fn after(namespaces: &[&str], script: &str) -> super::run::Output {
    let script = format!("{script}exec \"$0\" list --backend task-file");
    let mut command = Command::new("unshare");
    let command = command.args(namespaces).args(["sh", "-ec", &script]);
    output(command.arg(tool()))
}

fn assert_told(ran: &super::run::Output, told: &str) {
    assert_eq!(ran.status.code(), Some(3), "{ran:?}");
    assert_eq!(ran.stdout, "", "{ran:?}");
    assert!(ran.stderr.contains(told), "{ran:?}");
}

const OF_USERS: [&str; 2] = ["--user", "--map-root-user"];

fn root_of_a_user_namespace() -> Outcome {
    if !Path::new("/proc/self/ns/user").exists() {
        return skip("this kernel has no user namespaces (CONFIG_USER_NS)");
    }
    assert_told(&after(&OF_USERS, ""), "in a user namespace only");
    done()
}

/// A load that fails is told to be the fault of lockdown, if the kernel says that it is
/// in that mode: here a file that stands in place of the kernel's.
fn lockdown_is_named() -> Outcome {
    if !Path::new("/proc/self/ns/user").exists() {
        return skip("this kernel has no user namespaces (CONFIG_USER_NS)");
    }
    let security = "/sys/kernel/security";
    if !Path::new(security).exists() {
        return skip("this kernel has no securityfs (CONFIG_SECURITYFS, CONFIG_SECURITY)");
    }
    let script = |mode: &str| {
        format!("mount -t tmpfs none {security}; echo '{mode}' > {security}/lockdown; ")
    };
    let namespaces = [&OF_USERS[..], &["--mount"]].concat();
    let locked = after(&namespaces, &script("none integrity [confidentiality]"));
    assert_told(&locked, "lockdown=integrity");
    let open = after(&namespaces, &script("none [integrity] confidentiality"));
    assert_told(&open, "in a user namespace only");
    done()
}

fn a_kernel_without_btf() -> Outcome {
    let hide = "mount -t tmpfs none /sys/kernel/btf; ";
    assert_told(&after(&["--mount"], hide), "CONFIG_DEBUG_INFO_BTF");
    done()
}

/// A /proc with hidepid shows no process of others: that is not taken for their end.
fn processes_that_proc_hides() -> Outcome {
    let root = workload("--rings 1");
    let pid = root.pid();
    let program = for_everyone(&tool());
    let script = format!(
        "mount -t proc -o hidepid=2 proc /proc; \
         exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups \"$0\" \"$@\""
    );
    for (asked, told) in [
        (format!("list --pid {pid}"), "hidepid"),
        (format!("list --tid {pid}"), "hidepid"),
        (format!("epoll --pid {pid}"), "hidepid"),
        ("list".into(), "what could be inspected"),
        ("epoll".into(), "what could be inspected"),
    ] {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-ec", &script])
            .arg(&program);
        let ran = output(command.args(asked.split_whitespace()).current_dir("/"));
        assert_eq!(ran.status.code(), Some(3), "{asked}: {ran:?}");
        assert!(ran.stderr.contains(told), "{asked}: {ran:?}");
    }
    done()
}

/// A root without CAP_SYS_PTRACE is not told to be root; it may look at processes that have
/// no capability which it lacks.
fn root_that_may_not_look_at_others() -> Outcome {
    let other = workload("--rings 1");
    let asked = ["list", "--backend", "fdinfo", "--pid"];
    let without = |which: &str| {
        let mut command = Command::new("setpriv");
        command.args([format!("--bounding-set={which}"), "--".into()]);
        output(command.arg(tool()).args(asked).arg(other.pid().to_string()))
    };
    let ran = without("-sys_ptrace");
    assert_eq!(ran.status.code(), Some(3), "{ran:?}");
    assert!(ran.stderr.contains("have CAP_SYS_PTRACE"), "{ran:?}");
    assert!(!ran.stderr.contains("be root"), "{ran:?}");
    let ran = without("-net_raw");
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    done()
}
