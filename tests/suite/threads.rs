//! Processes whose threads do not share their descriptors, and those whose leader has
//! ended before the others.

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use rustix::event::{eventfd, EventfdFlags};
use serde_json::{json, Value};
use uring_bpf_iter::{Backend, EpollFinder, Error, Holder, RingFinder, UringBufIter};
use uring_testkit::{end_thread, page_size, unshare_descriptors, BufSpec, EpollSet, RingBuilder};

use super::oracle::{finder, no_locked_reads};
use super::run::{again, output, spawn, tool, Killed};
use super::{done, Outcome};

trials![
    one_number_in_each_of_several_threads,
    the_tool_tells_threads_apart,
    a_thread_that_shares_its_descriptors,
    the_leader_has_ended,
    the_tool_when_the_leader_has_ended,
    names_that_are_not_utf8,
    a_number_that_the_thread_does_not_have,
    threads_that_end_while_they_are_looked_at,
];

const BACKENDS: [Backend; 2] = [Backend::TaskFile, Backend::Fdinfo];

const THREADS: usize = 4;

/// A ring as the process that made it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    tid: u32,
    fd: i32,
    inode: u64,
    /// Of its only buffer.
    bytes: u64,
    /// That is registered.
    event: i32,
}

/// Another process, which waits until it is killed.
struct Other {
    process: Killed,
    rings: Vec<Said>,
    _stdout: BufReader<ChildStdout>,
}

impl Other {
    fn start(mode: &str, rings: usize) -> Self {
        let mut command = again(mode);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Killed(spawn(command).expect("this program again"));
        let mut stdout = BufReader::new(process.0.stdout.take().expect("piped"));
        let said = (0..rings).map(|_| {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("a line");
            let numbers: Vec<u64> = line
                .split_whitespace()
                .map(|number| number.parse().expect("a number"))
                .collect();
            let [tid, fd, inode, bytes, event] = numbers[..] else {
                panic!("five numbers: {line}");
            };
            Said {
                tid: tid as u32,
                fd: fd as i32,
                inode,
                bytes,
                event: event as i32,
            }
        });
        let rings = said.collect();
        Self {
            process,
            rings,
            _stdout: stdout,
        }
    }

    fn pid(&self) -> u32 {
        self.process.0.id()
    }
}

/// A ring with a buffer and a file. It is never dropped: the process is killed.
fn make(pages: usize) -> Said {
    let mut ring = RingBuilder::new(8).build().expect("ring");
    let bytes = pages * page_size();
    ring.register(&[BufSpec::new(bytes)]).expect("register");
    let event = eventfd(0, EventfdFlags::CLOEXEC).expect("eventfd");
    ring.register_files(&[event.as_fd()]).expect("register");
    let said = Said {
        tid: rustix::thread::gettid().as_raw_pid() as u32,
        fd: ring.as_fd().as_raw_fd(),
        inode: rustix::fs::fstat(&ring).expect("fstat").st_ino,
        bytes: bytes as u64,
        event: event.as_raw_fd(),
    };
    std::mem::forget((ring, event));
    said
}

fn say(one: Said) {
    let Said {
        tid,
        fd,
        inode,
        bytes,
        event,
    } = one;
    println!("{tid} {fd} {inode} {bytes} {event}");
}

fn sleep() -> ! {
    loop {
        thread::sleep(Duration::from_secs(600));
    }
}

/// Each thread has a table of descriptors that it does not share, and a ring there.
pub(crate) fn inside_tables() {
    for at in 0..THREADS {
        let (tell, told) = mpsc::channel();
        let thread = Builder::new().name(format!("ring-{at}")).spawn(move || {
            unshare_descriptors().expect("unshare");
            tell.send(make(1 + at)).expect("told");
            sleep()
        });
        thread.expect("a thread");
        say(told.recv().expect("a ring"));
    }
    sleep()
}

/// The leader ends before the thread that has made the ring.
pub(crate) fn inside_ended_leader() {
    let leader = rustix::thread::gettid().as_raw_pid();
    let thread = Builder::new().name("survivor".into()).spawn(move || {
        let ring = make(2);
        let stat = format!("/proc/{leader}/task/{leader}/stat");
        // Its state comes after its name.
        while !std::fs::read_to_string(&stat)
            .expect("stat")
            .contains(") Z ")
        {
            thread::sleep(Duration::from_millis(1));
        }
        say(ring);
        sleep()
    });
    thread.expect("a thread");
    end_thread()
}

/// What one buffer of a ring is long, by a reader that is attached to it.
fn bytes_of(mut iter: UringBufIter) -> Vec<u64> {
    let bufs = iter.snapshot().expect("a snapshot");
    bufs.iter().map(|buf| buf.len()).collect()
}

fn one_number_in_each_of_several_threads() -> Outcome {
    let other = Other::start("tables-of-threads", THREADS);
    let (pid, fd) = (other.pid(), other.rings[0].fd);
    assert!(
        other.rings.iter().all(|ring| ring.fd == fd),
        "{:?}",
        other.rings
    );
    let mut all: Vec<(u32, u64)> = other.rings.iter().map(|r| (r.tid, r.inode)).collect();
    all.sort_unstable();
    let is_told = |error: Error| match error {
        Error::SeveralRings {
            pid: told,
            fd: number,
            mut rings,
        } => {
            rings.sort_unstable();
            assert_eq!((told, number, rings), (pid, fd, all.clone()));
        }
        other => panic!("{other:?}"),
    };
    for backend in BACKENDS {
        let mut finder: RingFinder = finder(backend);
        let found = finder.find_in(pid)?;
        assert_eq!(found.unseen, [], "{backend}");
        assert_eq!(found.rings.len(), THREADS, "{backend}");
        for (at, said) in other.rings.iter().enumerate() {
            let rings = finder.find_thread(said.tid)?.rings;
            let [ring] = &rings[..] else {
                panic!("{backend}: one ring: {rings:?}");
            };
            let [holder] = ring.holders() else {
                panic!("{backend}: one holder: {ring:?}");
            };
            let is = (holder.pid, holder.tid, holder.fd(), ring.inode);
            assert_eq!(is, (pid, said.tid, Some(fd), said.inode), "{backend}");
            assert_eq!(holder.thread_name, Some(format!("ring-{at}")), "{backend}");
            assert_ne!(holder.name, format!("ring-{at}"), "{backend}");
            assert_eq!(ring.pinned.expect("quiet").bytes, said.bytes, "{backend}");
            let options = UringBufIter::options().backend(backend);
            assert_eq!(bytes_of(options.attach_ring(ring)?), [said.bytes]);
        }
        is_told(finder.find_fd(pid, fd).unwrap_err());
        let options = UringBufIter::options().backend(backend);
        is_told(options.attach_pid(pid, fd).unwrap_err());
    }
    done()
}

fn lines(args: &str) -> (Vec<Value>, String, Option<i32>) {
    let mut command = Command::new(tool());
    let ran = output(command.args(args.split_whitespace()));
    let lines = ran.stdout.lines().map(serde_json::from_str);
    let lines = lines.collect::<Result<_, _>>();
    let lines = lines.unwrap_or_else(|e| panic!("{args}: {e}: {}", ran.stdout));
    (lines, ran.stderr, ran.status.code())
}

fn the_tool_tells_threads_apart() -> Outcome {
    let other = Other::start("tables-of-threads", THREADS);
    let (pid, fd) = (other.pid(), other.rings[0].fd);
    for backend in BACKENDS {
        let asked = format!("list --backend {backend} --format json --pid {pid} --fd {fd}");
        let (rings, said, code) = lines(&asked);
        assert_eq!(
            (rings.len(), &said[..], code),
            (THREADS, "", Some(0)),
            "{asked}"
        );
        for ring in &other.rings {
            let tid = ring.tid;
            let asked = format!("bufs --backend {backend} --format json --tid {tid}");
            for asked in [asked.clone(), format!("{asked} --fd {fd}")] {
                let (lines, said, code) = lines(&asked);
                assert_eq!((lines.len(), &said[..], code), (2, "", Some(0)), "{asked}");
                let keys = json!([lines[1]["pid"], lines[1]["tid"], lines[1]["len"]]);
                assert_eq!(keys, json!([pid, tid, ring.bytes]), "{asked}");
            }
        }
        let thread = other.rings[0].tid;
        let (_, said, code) = lines(&format!("list --backend {backend} --pid {thread}"));
        let whose = format!("{thread} is a thread of process {pid}");
        assert!(code == Some(1) && said.contains(&whose), "{code:?}: {said}");
    }
    let ran = output(Command::new(tool()).args(["list", "--pid", &pid.to_string()]));
    for (at, ring) in other.rings.iter().enumerate() {
        let row = ran
            .stdout
            .lines()
            .find(|row| row.contains(&format!("/ring-{at} ")));
        let row = row.unwrap_or_else(|| panic!("no ring-{at}: {}", ran.stdout));
        let cells: Vec<&str> = row.split_whitespace().take(3).collect();
        let tid = ring.tid.to_string();
        assert_eq!(cells, [&ring.inode.to_string(), &pid.to_string(), &tid]);
    }
    done()
}

fn a_thread_that_shares_its_descriptors() -> Outcome {
    let ring = RingBuilder::new(8).build()?;
    let (pid, fd) = (std::process::id(), ring.as_fd().as_raw_fd());
    let inode = rustix::fs::fstat(&ring)?.st_ino;
    let looked = thread::spawn(move || {
        let tid = rustix::thread::gettid().as_raw_pid() as u32;
        BACKENDS.map(|backend| {
            let rings = finder(backend).find_thread(tid).expect("a search").rings;
            let ring = rings.into_iter().find(|ring| ring.inode == inode);
            let ring = ring.unwrap_or_else(|| panic!("{backend}: not found"));
            ring.holder(pid, Some(fd)).is_some()
        })
    });
    assert_eq!(looked.join().expect("no panic"), [true; 2]);
    let none = finder(None).find_thread(u32::MAX).unwrap_err();
    assert!(matches!(none, Error::NoSuchProcess { .. }), "{none:?}");
    done()
}

fn the_leader_has_ended() -> Outcome {
    let other = Other::start("ended-leader", 1);
    let (pid, said) = (other.pid(), other.rings[0]);
    for backend in BACKENDS {
        let rings = finder(backend).find_in(pid)?.rings;
        let [ring] = &rings[..] else {
            panic!("{backend}: one ring: {rings:?}");
        };
        let holder = ring.owner();
        let is = (holder.pid, holder.tid, holder.fd(), ring.inode);
        assert_eq!(is, (pid, said.tid, Some(said.fd), said.inode), "{backend}");
        assert_eq!(holder.thread_name.as_deref(), Some("survivor"), "{backend}");
        assert_eq!(finder(backend).find_fd(pid, said.fd)?.inode, said.inode);
        let options = UringBufIter::options().backend(backend);
        assert_eq!(bytes_of(options.attach_ring(ring)?), [said.bytes]);
        let options = UringBufIter::options().backend(backend);
        assert_eq!(bytes_of(options.attach_pid(pid, said.fd)?), [said.bytes]);
        let none = finder(backend).find_fd(pid, 999).unwrap_err();
        assert!(
            matches!(none, Error::NoSuchDescriptor { fd: 999, .. }),
            "{none:?}"
        );
        let other = finder(backend).find_fd(pid, said.event).unwrap_err();
        assert!(matches!(other, Error::NotARing { .. }), "{other:?}");
    }
    if no_locked_reads().is_none() {
        let mut iter = UringBufIter::options()
            .backend(Backend::TaskFile)
            .attach_pid(pid, said.fd)?;
        let bufs = iter.snapshot_locked(Duration::from_secs(5))?;
        assert_eq!(bufs.iter().map(|buf| buf.len()).sum::<u64>(), said.bytes);
    }
    done()
}

fn the_tool_when_the_leader_has_ended() -> Outcome {
    let other = Other::start("ended-leader", 1);
    let (pid, said) = (other.pid(), other.rings[0]);
    for backend in BACKENDS {
        let asked = format!("list --backend {backend} --format json --pid {pid}");
        let (rings, told, code) = lines(&asked);
        assert_eq!((rings.len(), &told[..], code), (1, "", Some(0)), "{asked}");
        assert_eq!(rings[0]["holders"][0]["tid"], said.tid, "{asked}");
    }
    let asked = format!("files --format json --pid {pid}");
    let (files, told, code) = lines(&asked);
    assert_eq!((files.len(), &told[..], code), (2, "", Some(0)), "{asked}");
    assert_eq!(files[1]["owner_fds"], json!([said.event]), "{asked}");
    if no_locked_reads().is_none() {
        let asked = format!("bufs --locked --format json --pid {pid}");
        let (bufs, told, code) = lines(&asked);
        assert_eq!((bufs.len(), &told[..], code), (2, "", Some(0)), "{asked}");
        assert_eq!(bufs[1]["len"], said.bytes, "{asked}");
    }
    done()
}

/// Gives itself a name that is not text, and looks at itself.
pub(crate) fn inside_strange_name() {
    rustix::thread::set_name(c"a/\xff\nb").expect("a name");
    let _ring = RingBuilder::new(8).build().expect("ring");
    let pid = std::process::id();
    for backend in BACKENDS {
        let asked = format!("list --backend {backend} --format json --pid {pid}");
        let (rings, told, code) = lines(&asked);
        assert_eq!((rings.len(), &told[..], code), (1, "", Some(0)), "{asked}");
        let holder = &rings[0]["holders"][0];
        let names = (&holder["name"], &holder["name_bytes"]);
        assert_eq!(
            names,
            (&json!("a/\u{fffd}\nb"), &json!("612fff0a62")),
            "{asked}"
        );
        assert!(holder.get("thread_name_bytes").is_none(), "{asked}");
    }
}

fn names_that_are_not_utf8() -> Outcome {
    super::inner::expect_done(&mut again("strange-name"));
    done()
}

/// A ring that the leader has under one more number than a thread with a table that
/// it does not share, which has a ring besides.
pub(crate) fn inside_late_ring() {
    let ring = RingBuilder::new(8).build().expect("ring");
    let (tell, told) = mpsc::channel();
    let (ready, wait) = mpsc::channel();
    let thread = Builder::new().spawn(move || {
        unshare_descriptors().expect("unshare");
        ready.send(()).expect("told");
        tell.send(make(2)).expect("told");
        sleep()
    });
    thread.expect("a thread");
    wait.recv().expect("separate");
    let of_thread = told.recv().expect("a ring");
    let one = Said {
        tid: std::process::id(),
        fd: 700,
        inode: rustix::fs::fstat(&ring).expect("fstat").st_ino,
        bytes: 0,
        event: 0,
    };
    let fd = rustix::io::fcntl_dupfd_cloexec(&ring, 700).expect("dup");
    std::mem::forget((ring, fd));
    say(one);
    say(of_thread);
    sleep()
}

fn a_number_that_the_thread_does_not_have() -> Outcome {
    let other = Other::start("late-ring", 2);
    let (pid, leader, thread) = (other.pid(), other.rings[0], other.rings[1]);
    for backend in BACKENDS {
        let asked = format!(
            "list --backend {backend} --format json --tid {}",
            thread.tid
        );
        let (rings, told, code) = lines(&format!("{asked} --fd {}", thread.fd));
        assert_eq!((rings.len(), &told[..], code), (1, "", Some(0)), "{asked}");
        assert_eq!(rings[0]["ring"], thread.inode, "{asked}");
        let (rings, told, code) = lines(&format!("{asked} --fd {}", leader.fd));
        assert_eq!((rings.len(), code), (0, Some(1)), "{asked}: {told}");
        assert!(told.contains("no descriptor 700"), "{asked}: {told}");
        let asked = format!("list --backend {backend} --format json --pid {pid} --fd 700");
        assert_eq!(lines(&asked).0[0]["ring"], leader.inode, "{asked}");
    }
    done()
}

/// Threads with tables of their own come and go, and the leader keeps a ring and a set.
pub(crate) fn inside_churn() {
    let ring = make(1);
    let set = EpollSet::new().expect("an epoll set");
    say(Said {
        event: set.as_fd().as_raw_fd(),
        ..ring
    });
    loop {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                thread::spawn(|| {
                    unshare_descriptors().expect("unshare");
                    thread::sleep(Duration::from_micros(200));
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("no panic");
        }
    }
}

/// As many searches as ten seconds have room for: in an emulated machine they are few.
fn threads_that_end_while_they_are_looked_at() -> Outcome {
    let other = Other::start("churning-threads", 1);
    let (pid, said) = (other.pid(), other.rings[0]);
    for backend in BACKENDS {
        let mut rings = finder(backend);
        let mut sets = EpollFinder::with_backend(backend)?;
        let (start, mut round) = (Instant::now(), 0);
        while round < 20 || (round < 300 && start.elapsed() < Duration::from_secs(10)) {
            round += 1;
            let found = rings.find_in(pid)?;
            let has = |fd: i32| move |one: &Holder| one.tid == pid && one.fd() == Some(fd);
            let mut holders = found.rings.iter().flat_map(|ring| ring.holders());
            assert!(holders.any(has(said.fd)), "{backend}, {round}: {found:?}");
            let found = sets.find_in(pid)?;
            let mut holders = found.sets.iter().flat_map(|set| set.holders());
            assert!(
                holders.any(has(said.event)),
                "{backend}, {round}: {found:?}"
            );
        }
    }
    done()
}
