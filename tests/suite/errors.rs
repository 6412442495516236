//! What is no ring, no descriptor or no process: the right error for each.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::process;

use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use uring_bpf_iter::{Backend, Error, Link, Reason, RegisteredBuf, RingFinder, UringBufIter};
use uring_testkit::{RingBuilder, TestRing};

use super::inner::expect_done;
use super::oracle::{finder, has_native, status};
use super::run::{again, idle_process, output, tool, workload};
use super::{done, Outcome};

trials![
    a_btf_that_cannot_be_read,
    other_kinds_of_descriptors,
    numbers_that_are_no_descriptor,
    processes_that_are_not_there,
    a_thread_is_no_process,
    a_process_that_has_ended,
    a_number_that_became_another_ring,
    the_native_backend_is_refused_with_its_reason,
    too_few_descriptors,
];

/// No process has this number: the kernel's own limit is 4,194,304.
const NO_PID: u32 = 4_194_305;

fn ring() -> TestRing {
    RingBuilder::new(8).build().expect("ring")
}

const BACKENDS: [Option<Backend>; 3] = [None, Some(Backend::TaskFile), Some(Backend::Fdinfo)];

fn attach_pid(backend: Option<Backend>, pid: u32, fd: i32) -> Error {
    let options = UringBufIter::options().backend(backend);
    options
        .attach_pid(pid, fd)
        .expect_err("there is nothing to attach to")
}

fn other_kinds_of_descriptors() -> Outcome {
    let (reader, _writer) = rustix::pipe::pipe()?;
    let file = File::open("/proc/self/exe")?;
    let me = std::env::current_exe()?;
    let kinds = [
        (reader.as_fd(), "pipe:[".to_owned()),
        (file.as_fd(), me.display().to_string()),
    ];
    for backend in BACKENDS {
        for (fd, looks) in &kinds {
            let raw = fd.as_raw_fd();
            let is_named = |error: &Error| match error {
                Error::NotARing { pid, fd, what } => {
                    (*pid, *fd) == (process::id(), raw) && what.starts_with(looks)
                }
                _ => false,
            };
            let options = UringBufIter::options().backend(backend);
            let error = options.attach(fd).expect_err("no ring");
            assert!(is_named(&error), "{backend:?}: {error:?}");
            let error = attach_pid(backend, process::id(), raw);
            assert!(is_named(&error), "{backend:?}: {error:?}");
            let error = finder(backend).find_fd(process::id(), raw).unwrap_err();
            assert!(is_named(&error), "{backend:?}: {error:?}");
            assert!(!error.is_retryable());
        }
    }
    done()
}

fn numbers_that_are_no_descriptor() -> Outcome {
    let _so_that_there_is_one = ring();
    for backend in BACKENDS {
        for number in [19_999, i32::MAX, -1, -100, i32::MIN] {
            let is_right = |error: &Error| {
                matches!(error, Error::NoSuchDescriptor { pid, fd }
                    if (*pid, *fd) == (process::id(), number))
            };
            let error = attach_pid(backend, process::id(), number);
            assert!(is_right(&error), "{backend:?}: {error:?}");
            let error = finder(backend).find_fd(process::id(), number).unwrap_err();
            assert!(is_right(&error), "{backend:?}: {error:?}");
        }
        // Also of a process that has no ring at all.
        let idle = idle_process();
        let error = finder(backend).find_fd(idle.0.id(), 19_999).unwrap_err();
        assert!(matches!(error, Error::NoSuchDescriptor { .. }), "{error:?}");
    }
    done()
}

fn processes_that_are_not_there() -> Outcome {
    let fd = ring().raw_fd();
    for backend in BACKENDS {
        for wanted in [0, NO_PID, i32::MAX as u32, 1 << 31, u32::MAX] {
            let is_right =
                |error: &Error| matches!(error, Error::NoSuchProcess { pid } if *pid == wanted);
            let error = attach_pid(backend, wanted, fd);
            assert!(is_right(&error), "{backend:?}: {error:?}");
            let error = finder(backend).find_in(wanted).unwrap_err();
            assert!(is_right(&error), "{backend:?}: {error:?}");
            let error = finder(backend).find_fd(wanted, fd).unwrap_err();
            assert!(is_right(&error), "{backend:?}: {error:?}");
        }
    }
    done()
}

fn a_thread_is_no_process() -> Outcome {
    let ring = ring();
    let fd = ring.raw_fd();
    let thread = std::thread::spawn(move || -> Vec<(String, Result<(), Error>)> {
        let tid = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        assert_ne!(tid, process::id());
        let mut all = Vec::new();
        for backend in BACKENDS {
            let options = UringBufIter::options().backend(backend);
            let attached = options.attach_pid(tid, fd).map(drop);
            all.push((format!("attach_pid by {backend:?}"), attached));
            let found = finder(backend).find_in(tid).map(drop);
            all.push((format!("find_in by {backend:?}"), found));
        }
        all
    });
    let wrong: Vec<String> = thread
        .join()
        .expect("no panic")
        .into_iter()
        .filter(|(_, result)| {
            !matches!(result, Err(Error::IsAThread { pid, .. }) if *pid == process::id())
        })
        .map(|(what, result)| format!("{what}: {result:?}"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    done()
}

fn a_process_that_has_ended() -> Outcome {
    // Killed and not collected: its number is there, what it held is not.
    let mut child = idle_process();
    child.0.kill()?;
    while !status(child.0.id(), "State").starts_with('Z') {
        std::thread::yield_now();
    }
    for backend in BACKENDS {
        let error = attach_pid(backend, child.0.id(), 0);
        assert!(
            matches!(
                error,
                Error::NoSuchProcess { .. } | Error::NoSuchDescriptor { .. }
            ),
            "{backend:?}: {error:?}"
        );
        let found = finder(backend).find_in(child.0.id());
        assert!(
            matches!(&found, Ok(survey) if survey.rings.is_empty())
                || matches!(found, Err(Error::NoSuchProcess { .. })),
            "{backend:?}: {found:?}"
        );
    }
    let pid = child.0.id();
    drop(child);
    for backend in BACKENDS {
        let error = attach_pid(backend, pid, 0);
        assert!(matches!(error, Error::NoSuchProcess { .. }), "{error:?}");
    }
    done()
}

/// The descriptor's number goes to another ring: what was attached is gone.
fn a_number_that_became_another_ring() -> Outcome {
    for backend in [Backend::TaskFile, Backend::Fdinfo] {
        // In a process of few descriptors, nobody else takes the number.
        let load = workload("--rings 1");
        let report = &load.report().rings[0];
        let inode = report.inode.expect("an inode");
        let mut found = finder(backend).find_in(load.pid())?.rings.remove(0);
        assert_eq!(found.inode, inode);
        found.inode += 1_000_000_000;
        let options = UringBufIter::options().backend(backend);
        let error = match options.attach_ring(&found) {
            Ok(mut iter) => iter.snapshot().map(drop).unwrap_err(),
            Err(error) => error,
        };
        assert!(
            matches!(error, Error::RingGone { .. }),
            "{backend:?}: {error:?}"
        );
    }
    done()
}

fn the_native_backend_is_refused_with_its_reason() -> Outcome {
    if super::oracle::has_native() {
        return super::results::skip("this kernel has native iterators");
    }
    let ring = ring();
    let options = UringBufIter::options().backend(Backend::Native);
    let attached = options.attach(&ring).map(drop).unwrap_err();
    let found = RingFinder::with_backend(Backend::Native)
        .map(drop)
        .unwrap_err();
    for error in [attached, found] {
        let Error::NoBackend { refusals } = &error else {
            panic!("{error:?}");
        };
        let [refusal] = &refusals[..] else {
            panic!("{error:?}");
        };
        assert_eq!(refusal.backend, Backend::Native);
        assert!(
            matches!(
                refusal.reason,
                Reason::MissingTarget("io_uring_buf") | Reason::CannotSearch
            ),
            "{error:?}"
        );
    }
    done()
}

/// A process that may open few files is told that, and not that this kernel lacks
/// something: the backend must not depend on it.
fn too_few_descriptors() -> Outcome {
    expect_done(&mut again("few-descriptors"));
    done()
}

pub(crate) fn inside_few_descriptors() {
    let ring = ring();
    let look = |backend| {
        let mut iter = UringBufIter::options().backend(backend).attach(&ring)?;
        iter.snapshot().map(|snapshot| snapshot.backend())
    };
    let usual = match has_native() {
        true => Backend::Native,
        false => Backend::TaskFile,
    };
    // Nothing has been loaded before: what the first attempts find out about the kernel
    // is not to be what they found for want of descriptors.
    with_more_and_more(|more| {
        // A backend that was asked for is not said to be missing.
        if let Err(error) = look(Some(usual)) {
            assert!(matches!(error, Error::Os { .. }), "{more} more: {error}");
        }
        let backend = look(None)?;
        assert_eq!(backend, usual, "{more} more");
        Ok(())
    });
    if usual == Backend::Native {
        // The kernel's types are read first, and for that a descriptor is needed.
        with_more_and_more(|_| Link::<RegisteredBuf>::attach(&ring).map(drop));
    }
}

/// Does it with no descriptor to spare, with one, and so on until it can be done. What
/// hinders it until then must be that.
fn with_more_and_more(mut it: impl FnMut(u64) -> Result<(), Error>) {
    let usual = getrlimit(Resource::Nofile);
    let open = std::fs::read_dir("/proc/self/fd").expect("fd").count() as u64;
    // One of them was the folder's.
    for more in 0.. {
        let limit = Rlimit {
            current: Some(open - 1 + more),
            maximum: usual.maximum,
        };
        setrlimit(Resource::Nofile, limit).expect("setrlimit");
        match it(more) {
            Ok(()) => {
                assert!(more > 1, "that was no limit");
                break;
            }
            Err(Error::Os { source, .. }) => {
                assert_eq!(source.raw_os_error(), Some(libc::EMFILE), "{more} more");
            }
            Err(error) => panic!("{more} more: {error}"),
        }
    }
    setrlimit(Resource::Nofile, usual).expect("setrlimit");
}

/// As in a container that hides it: what can do without serves.
fn a_btf_that_cannot_be_read() -> Outcome {
    let load = workload("--bufs 3");
    let hidden = "mount --bind /dev/null /sys/kernel/btf/vmlinux && exec \"$@\"";
    for backend in ["auto", "native"] {
        let mut command = std::process::Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", hidden, "sh"])
            .arg(tool())
            .args(["bufs", "--format", "json", "--backend", backend])
            .args(["--pid", &load.pid().to_string()]);
        let output = output(&mut command);
        let text = format!("{}{}", output.stdout, output.stderr);
        match backend {
            "auto" => assert!(output.status.success(), "{text}"),
            _ => {
                assert_eq!(output.status.code(), Some(3), "{text}");
                assert!(text.contains("/sys/kernel/btf/vmlinux"), "{text}");
            }
        }
    }
    done()
}
