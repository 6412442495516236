//! What only looks like a ring must not be taken for one.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::process;
use std::time::{Duration, Instant};

use rustix::fs::{memfd_create, MemfdFlags};
use uring_bpf_iter::{Backend, Error, UringBufIter};

use super::oracle::finder;
use super::run::{spawn, Killed};
use super::{done, Outcome};

trials![
    files_with_the_name_of_a_ring,
    a_mapped_file_with_the_name_of_a_ring
];

const BACKENDS: [Backend; 2] = [Backend::TaskFile, Backend::Fdinfo];

/// A directory that goes with the test.
struct Dir(std::path::PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("uring-fakes-{name}-{}", process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        Self(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn files_with_the_name_of_a_ring() -> Outcome {
    let dir = Dir::new("open");
    let mut fakes: Vec<File> = vec![
        File::create(dir.0.join("[io_uring]"))?,
        File::create(dir.0.join("anon_inode:[io_uring]"))?,
        memfd_create("[io_uring]", MemfdFlags::CLOEXEC)?.into(),
        memfd_create("anon_inode:[io_uring]", MemfdFlags::CLOEXEC)?.into(),
    ];
    // Deleted, and still open: the name in /proc changes, the dentry's not.
    let deleted = File::create(dir.0.join("[io_uring]"))?;
    fs::remove_file(dir.0.join("[io_uring]"))?;
    fakes.push(deleted);
    // An anonymous inode of another kind, on the same file system as rings.
    fakes.push(rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?.into());

    let me = process::id();
    for backend in BACKENDS {
        let mut finder = finder(backend);
        let found = finder.find_in(me)?.rings;
        for fake in &fakes {
            let fd = fake.as_raw_fd();
            assert!(
                found.iter().all(|ring| ring.holder(me, Some(fd)).is_none()),
                "{fake:?}"
            );
            let error = finder.find_fd(me, fd).expect_err("no ring");
            assert!(
                matches!(error, Error::NotARing { .. }),
                "{fake:?}: {error:?}"
            );
            for error in [
                UringBufIter::attach_pid(me, fd).map(drop).unwrap_err(),
                UringBufIter::attach(fake.as_fd()).map(drop).unwrap_err(),
            ] {
                assert!(
                    matches!(error, Error::NotARing { .. }),
                    "{fake:?}: {error:?}"
                );
            }
        }
    }
    done()
}

/// A process runs from a file of that name, so it is mapped.
fn a_mapped_file_with_the_name_of_a_ring() -> Outcome {
    let dir = Dir::new("mapped");
    let program = dir.0.join("[io_uring]");
    fs::copy("/bin/sleep", &program)?;
    let child = Killed(spawn(process::Command::new(&program).arg("600"))?);
    let maps = || fs::read_to_string(format!("/proc/{}/maps", child.0.id()));
    let start = Instant::now();
    while !maps()?.contains("/[io_uring]") {
        assert!(start.elapsed() < Duration::from_secs(10), "{}", maps()?);
        std::thread::sleep(Duration::from_millis(1));
    }
    for backend in BACKENDS {
        let mut finder = finder(backend);
        assert_eq!(finder.find_in(child.0.id())?.rings, []);
        let all = finder.find_all()?.rings;
        assert!(all
            .iter()
            .all(|ring| ring.holder(child.0.id(), None).is_none()));
    }
    done()
}
