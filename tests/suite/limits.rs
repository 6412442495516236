//! A limit for each trial. A trial that takes longer has failed, by name: it cannot be
//! stopped in this process, so the whole process ends, with the results that there are.

use std::collections::BTreeMap;
use std::process;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Arguments;

use super::{done, results, run, slowest, Company, Outcome};

trials![a_trial_over_its_limit_fails_by_name];

/// Seconds for a trial that is not in the list below. Few need ten; a busy machine
/// may make six times as much of it.
const USUAL: u64 = 120;

/// Trials that may take longer, by how their names begin, and the reason.
const LONGER: [(&str, u64, &str); 5] = [
    (
        "long_hold::",
        240,
        "holds a lock for 125 s, longer than the kernel waits before it reports a hung task",
    ),
    (
        "torn::",
        420,
        "reads until chance has shown enough, for 90 s in each of two or three parts",
    ),
    (
        "epoll_torn::",
        180,
        "the same, for 40 s in each of two or three parts",
    ),
    (
        "native_stress::",
        240,
        "60 s of stress, and what it leaves must be gone before it ends",
    ),
    (
        "native_memory::",
        300,
        "1,000 rounds of all that can be made, and two scans by kmemleak",
    ),
];

/// The variable with a factor for all limits: emulated processors are slow, and so
/// are checks that a compiler or a kernel adds.
const FACTOR: &str = "URING_SUITE_LIMIT_FACTOR";

/// How often the watchdog looks.
const TICK: Duration = Duration::from_millis(200);

/// The exit status of a process that a trial over its limit has ended.
const STATUS: i32 = 101;

/// The trials that run, with when each began and what its limit is.
type Running = BTreeMap<String, (Instant, Duration)>;

static RUNNING: Mutex<Running> = Mutex::new(Running::new());

fn running() -> MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn limit_of(trial: &str) -> Duration {
    let longer = LONGER.iter().find(|(begin, ..)| trial.starts_with(begin));
    let seconds = longer.map_or(USUAL, |(_, seconds, _)| *seconds);
    let factor = std::env::var(FACTOR).ok();
    let factor = factor.map_or(1.0, |text| text.parse().expect("a number"));
    Duration::from_secs(seconds).mul_f64(factor)
}

/// The limit of a program that a trial runs: what hangs fails its trial alone.
pub(super) fn of_a_program() -> Duration {
    limit_of("").mul_f64(0.75)
}

/// Runs a trial within its limit.
pub(super) fn within(trial: &str, body: impl FnOnce() -> Outcome) -> Outcome {
    static WATCHDOG: Once = Once::new();
    WATCHDOG.call_once(|| {
        thread::spawn(watch);
    });
    let (start, limit) = (Instant::now(), limit_of(trial));
    running().insert(trial.to_owned(), (start, limit));
    let _listed = Listed(trial, start);
    let outcome = body();
    let took = start.elapsed();
    if took > limit {
        return Err(told(trial, took, limit).into());
    }
    outcome
}

/// Takes a trial off the list, and notes its time, also when it panics.
struct Listed<'a>(&'a str, Instant);

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        running().remove(self.0);
        slowest::note(self.0, self.1.elapsed());
    }
}

fn told(trial: &str, took: Duration, limit: Duration) -> String {
    let [took, limit] = [took, limit].map(|time| time.as_secs_f64());
    format!("{trial} has run for {took:.1} s, and its limit is {limit:.1} s")
}

/// Ends the process when a trial is over its limit.
fn watch() -> ! {
    loop {
        thread::sleep(TICK);
        let running = running();
        let over = running
            .iter()
            .find(|(_, (start, limit))| start.elapsed() > *limit);
        let Some((trial, (start, limit))) = over else {
            continue;
        };
        let told = told(trial, start.elapsed(), *limit);
        println!("\n---- {trial} ----\nOVER ITS LIMIT: {told}");
        for other in running.keys().filter(|other| *other != trial) {
            println!("was running beside it, and has no result: {other}");
            results::forget(other);
        }
        slowest::note(trial, start.elapsed());
        println!(
            "\ntest result: FAILED. {trial} was over its limit, and others may not have run\n"
        );
        super::finish();
        end_children();
        process::exit(STATUS);
    }
}

/// Ends the programs that trials have started: nothing is dropped after this, and they
/// may have our output open. Where the kernel does not list children they go on.
fn end_children() {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        return;
    };
    for thread in threads.flatten() {
        let children = std::fs::read_to_string(thread.path().join("children"));
        for pid in children.unwrap_or_default().split_whitespace() {
            let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _may_have_ended =
                    rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// In a process of its own, whose limits are short.
fn a_trial_over_its_limit_fails_by_name() -> Outcome {
    let dir = std::env::temp_dir().join(format!("uring-suite-limit-{}", process::id()));
    let output = run::output(
        run::again("over-limit")
            .env(FACTOR, "0.01")
            .env(results::FILE, &dir),
    );
    let results = std::fs::read_to_string(&dir)?;
    std::fs::remove_file(&dir)?;
    assert_eq!(output.status.code(), Some(STATUS), "{}", output.stdout);
    for said in [
        "OVER ITS LIMIT: limits::sleeps has run for ",
        "and its limit is 1.2 s",
        "no result: limits::waits",
        "---- limits::sleeps ----",
    ] {
        assert!(output.stdout.contains(said), "{said}: {}", output.stdout);
    }
    let results: serde_json::Value = serde_json::from_str(&results)?;
    let trials = serde_json::json!({ "limits::ends": "ok", "limits::sleeps": "failed" });
    assert_eq!(results["trials"], trials);
    done()
}

/// What that process does.
pub(super) fn inside() {
    let trial = |name, body| super::trial("limits", name, Company::Any, body);
    let sleep = |time| {
        thread::sleep(time);
        done()
    };
    let trials = vec![
        trial(
            "ends",
            Box::new(done) as Box<dyn FnOnce() -> Outcome + Send>,
        ),
        trial("sleeps", Box::new(move || sleep(Duration::from_secs(60)))),
        // It begins later, so that it is not the first one over its limit.
        trial(
            "waits",
            Box::new(move || {
                running()
                    .entry("limits::waits".to_owned())
                    .and_modify(|it| it.0 += TICK * 5);
                sleep(Duration::from_secs(60))
            }),
        ),
    ];
    let args = Arguments {
        test_threads: Some(3),
        ..Arguments::default()
    };
    libtest_mimic::run(&args, trials).exit();
}
