//! The process that waits for `uring_lock` in place of ours: one for each reader, never
//! in anybody's way, and gone when it should be.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{self, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{kill_process, Pid, Signal};
use uring_bpf_iter::{Backend, Contention, UringBufIter};
use uring_testkit::{
    fork_survivor, in_forked_child, interrupt_every, BufSpec, PipeWitness, RingBuilder, TestRing,
};

use super::contention::{forget, hold, refused, ring};
use super::inner::expect_done;
use super::oracle::{
    assert_reads, attach, children_of, finder, no_locked_reads, status, Way, LOCKED,
};
use super::results::skip;
use super::run::{again, Killed};
use super::{done, Outcome};

trials![one_for_each_reader, ends_with_a_parent_that_is_killed];

const NAME: &str = "uring-observer";
/// What a busy machine needs to end a process.
const LONG: Duration = Duration::from_secs(10);

fn is_observer(pid: u32) -> bool {
    status(pid, "Name") == NAME && !status(pid, "State").starts_with('Z')
}

/// Those of this process.
fn observers() -> BTreeSet<u32> {
    let mut children = children_of(process::id());
    children.retain(|pid| is_observer(*pid));
    children
}

/// The observer of a process that has one.
#[track_caller]
fn observer() -> u32 {
    let all = observers();
    assert_eq!(all.len(), 1, "{all:?}");
    all.into_iter().next().expect("one")
}

#[track_caller]
fn becomes(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < LONG, "never {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid as i32).expect("a number");
    kill_process(pid, signal).expect("kill");
}

fn descriptors(pid: u32) -> Vec<String> {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors");
    all.map(|fd| {
        let file = fs::read_link(fd.expect("fd").path()).expect("a link");
        file.display().to_string()
    })
    .collect()
}

fn one_for_each_reader() -> Outcome {
    if let Some(reason) = no_locked_reads() {
        return skip(reason);
    }
    // In a process of its own: other trials have observers in this one.
    let said = expect_done(&mut again("observer"));
    print!("{said}");
    done()
}

/// Runs in that process.
pub(super) fn inside() {
    let ring = ring();
    let mut iter = attach(Way::Locked, process::id(), ring.raw_fd());
    let mut read = || assert_reads(Way::Locked, &mut iter, ring.expected());
    assert!(observers().is_empty(), "before the first locked read");

    read();
    let first = observer();
    for _ in 0..200 {
        read();
    }
    assert_eq!(observer(), first, "one for many reads");
    assert_eq!(descriptors(first), [""; 0], "between reads");

    // As a search sees it, this process is the only one that has its memory.
    for backend in [Backend::TaskFile, Backend::Fdinfo, Backend::TaskFile] {
        let survey = finder(backend).find_all().expect("find");
        let holders = survey.rings.iter().flat_map(|ring| ring.holders());
        let mut pids = holders.map(|holder| holder.pid);
        assert!(pids.all(|pid| pid != first), "it is no holder");
        assert!(survey.unseen.iter().all(|unseen| unseen.pid != first));
    }

    // Interrupted where it waits, it asks anew.
    for _ in 0..20 {
        send(first, Signal::STOP);
        becomes("stopped", || status(first, "State").starts_with('T'));
        send(first, Signal::CONT);
        read();
    }
    assert_eq!(observer(), first, "it goes on");

    // And when it is this process that is interrupted, at any place.
    interrupt_every(Duration::from_micros(70)).expect("alarms");
    for _ in 0..2000 {
        read();
    }
    interrupt_every(Duration::ZERO).expect("no alarms");
    assert_eq!(observer(), first, "it goes on");

    for _ in 0..5 {
        let before = observer();
        send(before, Signal::KILL);
        read();
        assert_ne!(observer(), before, "another one in place of the killed one");
    }
    killed_during_reads(&ring, &mut iter);
    from_a_thread_that_ends(&ring);
    nothing_is_kept();
    in_a_fork(&ring, &mut iter);
    stopped(&mut iter);
    waiting_for_the_lock(&ring, &mut iter);

    let mut other = attach(Way::Locked, process::id(), ring.raw_fd());
    assert_reads(Way::Locked, &mut iter, ring.expected());
    assert_reads(Way::Locked, &mut other, ring.expected());
    assert_eq!(observers().len(), 2, "one for each reader");
    drop(iter);
    becomes("one observer", || observers().len() == 1);
    drop(other);
    becomes("without observers", || observers().is_empty());
    // Nor is one left that is to be waited for.
    let _collects = finder(Backend::TaskFile);
    becomes("without children", || {
        let _collects = finder(Backend::TaskFile).find_in(process::id());
        children_of(process::id()).is_empty()
    });
}

/// Whatever a read comes to, it comes to an end.
fn killed_during_reads(ring: &TestRing, iter: &mut UringBufIter) {
    let start = Instant::now();
    let killer = thread::spawn(move || {
        let mut killed = 0;
        while start.elapsed() < Duration::from_secs(2) {
            for pid in observers() {
                send(pid, Signal::KILL);
                killed += 1;
            }
            thread::sleep(Duration::from_millis(20));
        }
        killed
    });
    let (mut whole, mut failed) = (0, 0);
    while !killer.is_finished() {
        match iter.snapshot_locked(LOCKED) {
            Ok(bufs) => {
                assert_eq!(bufs.len(), ring.expected().len());
                whole += 1;
            }
            Err(error) => {
                assert!(error.to_string().contains("killed"), "{error}");
                failed += 1;
            }
        }
    }
    let killed: u32 = killer.join().expect("no panic");
    println!("observer: killed {killed} times: {whole} reads, {failed} failed");
    assert!(whole > 0 && killed > 0);
    assert_reads(Way::Locked, iter, ring.expected());
}

/// It ends with the thread that started it, and nobody notices.
fn from_a_thread_that_ends(ring: &TestRing) {
    let mut iter = attach(Way::Locked, process::id(), ring.raw_fd());
    let before = observers();
    let iter = &mut iter;
    thread::scope(|scope| {
        scope.spawn(|| assert_reads(Way::Locked, iter, ring.expected()));
    });
    becomes("as before", || observers() == before);
    assert_reads(Way::Locked, iter, ring.expected());
}

/// A ring that was read goes when it is closed.
fn nothing_is_kept() {
    let mut witness = PipeWitness::new().expect("pipe");
    let mut ring = RingBuilder::new(8).build().expect("ring");
    ring.register_files(&[witness.end()]).expect("register");
    ring.register(&[BufSpec::new(100)]).expect("register");
    let mut iter = attach(Way::Locked, process::id(), ring.raw_fd());
    assert_reads(Way::Locked, &mut iter, ring.expected());
    witness.let_go();
    drop(ring);
    assert!(witness.released(LONG).expect("poll"), "the ring is kept");
}

fn in_a_fork(ring: &TestRing, iter: &mut UringBufIter) {
    assert_reads(Way::Locked, iter, ring.expected());
    let mut other = Some(attach(Way::Locked, process::id(), ring.raw_fd()));
    let others = other.as_mut().expect("there");
    assert_reads(Way::Locked, others, ring.expected());
    let ours = observers();
    assert_eq!(ours.len(), 2);
    becomes("alone", || {
        fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)
    });
    let fine = in_forked_child(|| {
        // What was opened before is the parent's, observer and all.
        let read = iter.snapshot_locked(LOCKED).map(drop);
        read.expect_err("a read in a child");
        drop(other.take());
        let mut own = attach(Way::Locked, process::id(), ring.raw_fd());
        assert_reads(Way::Locked, &mut own, ring.expected());
        assert!(!observers().is_empty(), "its own");
    });
    assert!(fine.expect("fork"), "the child has failed");
    assert_eq!(observers(), ours, "those of the parent live");
    assert_reads(Way::Locked, iter, ring.expected());
    let others = other.as_mut().expect("the child's was a copy");
    assert_reads(Way::Locked, others, ring.expected());
    assert_eq!(observers(), ours, "and serve");
    drop(other);
    becomes("one observer", || observers().len() == 1);
}

/// One that does not come back is given up in time.
fn stopped(iter: &mut UringBufIter) {
    let limit = Duration::from_millis(200);
    let pid = observer();
    send(pid, Signal::STOP);
    becomes("stopped", || status(pid, "State").starts_with('T'));
    let why = refused(limit, || forget(iter.snapshot_locked(limit)));
    assert_eq!(why, Contention::LockTimeout);
    becomes("gone", || !is_observer(pid));
}

/// Somebody takes the lock after the look at its owner: the observer cannot be ended, and
/// is left behind.
fn waiting_for_the_lock(ring: &TestRing, iter: &mut UringBufIter) {
    let limit = Duration::from_secs(2);
    assert_reads(Way::Locked, iter, ring.expected());
    let left = observer();
    send(left, Signal::STOP);
    becomes("stopped", || status(left, "State").starts_with('T'));
    let held = thread::scope(|scope| {
        let read = scope.spawn(|| refused(limit, || forget(iter.snapshot_locked(limit))));
        thread::sleep(limit / 4);
        let held = hold(ring).map_err(|reason| println!("NOT TESTED observer: {reason}"));
        send(left, Signal::CONT);
        let why = read.join().expect("no panic");
        held.map(|held| (held, why)).ok()
    });
    let Some((held, why)) = held else { return };
    assert_eq!(why, Contention::LockTimeout);
    assert!(status(left, "State").starts_with('D'), "it waits");
    assert_eq!(descriptors(left), ["anon_inode:[io_uring]"], "and no other");

    let survey = finder(Backend::TaskFile).find_all().expect("find");
    let mut holders = survey.rings.iter().flat_map(|ring| ring.holders());
    assert!(holders.all(|holder| holder.pid != left), "it is no holder");
    // Others can be read, and this one again in time.
    let other = super::contention::ring();
    let mut others = attach(Way::Locked, process::id(), other.raw_fd());
    assert_reads(Way::Locked, &mut others, other.expected());
    held.release().expect("release");
    becomes("gone", || !is_observer(left));
    assert_reads(Way::Locked, iter, ring.expected());
}

/// Though a process that it has forked has copies of all descriptors.
fn ends_with_a_parent_that_is_killed() -> Outcome {
    if let Some(reason) = no_locked_reads() {
        return skip(reason);
    }
    let mut parent = again("observer-orphaned");
    parent.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut parent = Killed(parent.spawn()?);
    let mut line = String::new();
    BufReader::new(parent.0.stdout.take().expect("piped")).read_line(&mut line)?;
    let numbers: Vec<u32> = (line.split_whitespace().map(str::parse)).collect::<Result<_, _>>()?;
    let [observer, survivor] = numbers[..] else {
        panic!("two numbers: {line}");
    };
    assert!(is_observer(observer), "{observer}");
    drop(parent);
    becomes("gone", || !is_observer(observer));
    assert!(!status(survivor, "State").is_empty(), "it survives");
    send(survivor, Signal::KILL);
    done()
}

/// Runs in the process that is killed.
pub(super) fn inside_orphaned() {
    let ring = ring();
    let mut iter = attach(Way::Locked, process::id(), ring.raw_fd());
    assert_reads(Way::Locked, &mut iter, ring.expected());
    let survivor = fork_survivor(Duration::from_secs(60)).expect("fork");
    println!("{} {survivor}", observer());
    thread::sleep(Duration::from_secs(60));
}
