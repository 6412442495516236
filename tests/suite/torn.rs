//! A table that never rests: no view that is accepted is torn. The same stress
//! with the check taken out (raw) shows that it would tear.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{sched_getaffinity, sched_setaffinity, CpuSet, Pid};
use uring_bpf_iter::{Consistency, Error, RegisteredBuf, Snapshot, UringBufIter};
use uring_testkit::{Flap, Flapper, RingBuilder, States, View};

use super::oracle::{no_locked_reads, threads_named, Way};
use super::results::skip;
use super::{done, Outcome};

trials![
    verified_while_updated,
    verified_while_reregistered,
    locked_while_updated,
    locked_while_reregistered,
    fdinfo_while_updated,
    fdinfo_while_reregistered,
];

const STRESS: Duration = Duration::from_secs(4);
/// To learn how long a change takes.
const PACED: Duration = Duration::from_millis(300);
/// To learn how often it would tear.
const RAW: Duration = Duration::from_secs(1);
/// On a busy machine it goes on until it proves something, but not for ever.
const LONGEST: Duration = Duration::from_secs(90);
const FLIPS: u64 = 50;
/// Between two changes at least, so that a reader that only tries the lock may
/// have it.
const REST: Duration = Duration::from_micros(40);

/// One stress at a time, for there may be no more than two CPUs: a reader and a
/// writer on one CPU never meet inside a system call.
pub(super) static ALONE: Mutex<()> = Mutex::new(());

/// Slots of the table. The rarer the looks, the longer each must be open to
/// tearing; but with a large table the lock is seldom free for a verified look.
fn slots(way: Way) -> usize {
    match way {
        Way::TaskFile => 32,
        // A text of less than a page: for a longer one the kernel starts over,
        // and each time has to get the lock.
        Way::Fdinfo => 64,
        Way::Native | Way::Locked => 512,
    }
}

/// What a stress came to.
#[derive(Debug, Default)]
struct Tally {
    views: BTreeMap<&'static str, u64>,
    retries: u64,
    refused: u64,
    /// Views by a single attempt, with a flip before it was over.
    met: u64,
}

impl Tally {
    fn count(&self, view: View) -> u64 {
        self.views.get(name(view)).copied().unwrap_or(0)
    }

    fn accepted(&self) -> u64 {
        self.views.values().sum()
    }
}

fn name(view: View) -> &'static str {
    match view {
        View::A => "A",
        View::B => "B",
        View::Empty => "empty",
        View::Torn => "torn",
    }
}

fn flapper(slots: usize, how: Flap) -> Flapper {
    let ring = RingBuilder::new(8)
        .cq_entries(4 * slots as u32)
        .build()
        .expect("ring");
    Flapper::start(ring, slots, how).expect("flapper")
}

fn judge(way: Way, states: &States, bufs: &[RegisteredBuf]) -> View {
    let ranges = bufs.iter().map(|buf| (buf.addr(), buf.len()));
    let by_range = states.view_ranges(ranges);
    if way == Way::Fdinfo {
        return by_range;
    }
    let by_tag = states.view_tags(bufs.iter().map(|buf| buf.tag().unwrap_or(0)));
    // A record whose tag is of one state and whose range is of the other.
    if by_tag == by_range {
        by_tag
    } else {
        View::Torn
    }
}

/// Reads until the time is over and it is `enough`.
fn stress(
    flapper: &Flapper,
    way: Way,
    least: Duration,
    mut read: impl FnMut(&mut UringBufIter) -> Result<Snapshot<'_>, Error>,
    enough: impl Fn(&Tally) -> bool,
) -> Tally {
    let mut iter = way.options().attach(flapper).expect("attach");
    let mut tally = Tally::default();
    let (start, flips) = (Instant::now(), flapper.flips());
    let proves = |tally: &Tally| flapper.flips() - flips > FLIPS && enough(tally);
    while start.elapsed() < least || (start.elapsed() < LONGEST && !proves(&tally)) {
        let before = flapper.flips();
        match read(&mut iter) {
            Ok(bufs) => {
                let met = bufs.attempts() == 1 && flapper.flips() > before;
                tally.met += u64::from(met);
                tally.retries += u64::from(bufs.attempts() - 1);
                let view = judge(way, flapper.states(), &bufs);
                *tally.views.entry(name(view)).or_default() += 1;
            }
            // A record from memory that is freed may be none at all (seen on 6.12).
            Err(Error::Malformed { .. }) => {
                *tally.views.entry(name(View::Torn)).or_default() += 1;
            }
            Err(Error::Contended { attempts, .. }) => {
                tally.retries += u64::from(attempts);
                tally.refused += 1;
            }
            Err(other) => panic!("Contended is the only error: {other:?}"),
        }
    }
    assert!(flapper.is_running(), "the table stood still");
    let flips = flapper.flips() - flips;
    assert!(flips > FLIPS, "the table hardly moved: {flips} flips");
    tally
}

fn check(way: Way, how: Flap) -> Outcome {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((ours, its)) = two_cpus() else {
        return skip("a reader and a writer at the same time need two CPUs");
    };
    let flapper = flapper(slots(way), how);
    flapper.rest(REST);
    for thread in threads_named(std::process::id(), "flapper") {
        pin(Pid::from_raw(thread as i32), its);
    }
    // In a thread of its own, which takes its CPU with it.
    let body = || {
        pin(None, ours);
        prove(&flapper, way, how);
    };
    let proven = thread::scope(|scope| scope.spawn(body).join());
    flapper.stop()?;
    match proven {
        Ok(()) => done(),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// How long to rest between two changes when looks take so long without their check.
/// One with the check takes twice as long, and is to be met by a change now and then,
/// not always.
pub(super) fn pace(mut look: impl FnMut()) -> Duration {
    let mut took: Vec<Duration> = (0..31)
        .map(|_| {
            let start = Instant::now();
            look();
            start.elapsed()
        })
        .collect();
    took.sort();
    4 * took[took.len() / 2]
}

fn prove(flapper: &Flapper, way: Way, how: Flap) {
    if way == Way::TaskFile {
        let mut iter = way.options().attach(flapper).expect("attach");
        let rest = pace(|| {
            // Of memory that is freed there may be no record at all.
            let _one_of_many = iter.snapshot_raw();
        });
        let rest = rest.max(REST);
        flapper.rest(rest);
        // As long as a change takes, too: up to 6.12 an unregister waits for RCU.
        let flips = flapper.flips();
        thread::sleep(PACED);
        let flips = u32::try_from(flapper.flips() - flips).expect("not as many");
        let change = (PACED / flips.max(1)).saturating_sub(rest);
        println!("torn: {way:?}, {how:?}: {change:?} for a change, {rest:?} for four looks");
        flapper.rest(rest.max(change));
    }
    // The check taken out. Fdinfo has no raw look: TaskFile's stands in.
    // Twice what is to be expected of the look that is proven, which takes longer.
    let torn = |raw: &Tally| raw.count(View::Torn) > 9;
    let raw = stress(flapper, Way::TaskFile, RAW, look_raw, torn);
    println!("torn: {way:?}, {how:?}: raw: {raw:?}");
    assert!(
        raw.count(View::Torn) > 0,
        "the stress would catch nothing: {raw:?}"
    );
    let would_be = |tally: &Tally| tally.accepted() * raw.count(View::Torn) / raw.accepted();
    let enough = |tally: &Tally| {
        let both = tally.count(View::A) > 0 && tally.count(View::B) > 0;
        let proves = match (way, how) {
            // A text takes so much longer than the raw look that the rate of that says
            // too little of it.
            (Way::Fdinfo, _) => tally.met >= 20,
            // A new table is stored whole, so that tearing is rare but at its end.
            (_, Flap::Reregister) => true,
            (_, Flap::Update) => would_be(tally) >= 5,
        };
        both && tally.accepted() >= 20 && proves
    };

    if way == Way::Fdinfo {
        // The kernel leaves the list out while the lock is taken, which on a quiet machine
        // is nearly always: a longer rest lets more texts be complete.
        flapper.rest(8 * REST);
    }
    let limit = Duration::from_secs(5);
    let tally = stress(flapper, way, STRESS, |iter| read(way, limit, iter), enough);
    println!(
        "torn: {way:?}, {how:?}: {tally:?}; without the check {} would be torn",
        would_be(&tally)
    );
    assert_eq!(tally.count(View::Torn), 0, "{tally:?}");
    if how == Flap::Update {
        assert_eq!(tally.count(View::Empty), 0, "there always is a table");
    }
    assert!(enough(&tally), "too few for a proof: {tally:?}, {raw:?}");
}

fn read(way: Way, limit: Duration, iter: &mut UringBufIter) -> Result<Snapshot<'_>, Error> {
    match way {
        Way::Locked => iter.snapshot_locked(limit),
        _ => iter.snapshot(),
    }
}

/// Two CPUs that this process may use.
pub(super) fn two_cpus() -> Option<(usize, usize)> {
    let may = sched_getaffinity(None).expect("affinity");
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| may.is_set(*cpu));
    Some((cpus.next()?, cpus.next()?))
}

pub(super) fn pin(thread: Option<Pid>, cpu: usize) {
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(thread, &one).expect("affinity");
}

fn look_raw(iter: &mut UringBufIter) -> Result<Snapshot<'_>, Error> {
    let bufs = iter.snapshot_raw()?;
    assert_eq!(bufs.consistency(), Consistency::Raw);
    Ok(bufs)
}

fn verified_while_updated() -> Outcome {
    check(Way::TaskFile, Flap::Update)
}

fn verified_while_reregistered() -> Outcome {
    check(Way::TaskFile, Flap::Reregister)
}

fn locked_while_updated() -> Outcome {
    locked(Flap::Update)
}

fn locked_while_reregistered() -> Outcome {
    locked(Flap::Reregister)
}

fn locked(how: Flap) -> Outcome {
    match no_locked_reads() {
        None => check(Way::Locked, how),
        Some(reason) => skip(reason),
    }
}

fn fdinfo_while_updated() -> Outcome {
    check(Way::Fdinfo, Flap::Update)
}

fn fdinfo_while_reregistered() -> Outcome {
    check(Way::Fdinfo, Flap::Reregister)
}
