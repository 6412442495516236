//! What snapshots cost the ring that is looked at: NOP requests a second of one
//! thread, while another takes so many snapshots a second. Windows with and
//! without them alternate; told are the median, the least and the most that a
//! pair of windows lost. Less than nothing is the noise of the machine.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use uring_bpf_iter::{Backend, UringBufIter};
use uring_testkit::{BufSpec, RingBuilder, TestRing};

use crate::bench::{Bench, Result, Table};

const BUFFERS: usize = 1024;
const BATCH: u32 = 64;
const RATES: &[u32] = &[1, 10, 100, 1000];
const WINDOW: Duration = Duration::from_secs(1);
const PAIRS: usize = 7;

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let (window, pairs, rates) = match bench.once {
        true => (Duration::from_millis(20), 1, &RATES[2..3]),
        false => (WINDOW, PAIRS, RATES),
    };
    let mut ring = RingBuilder::new(BATCH).build()?;
    ring.register(&vec![BufSpec::new(4096); BUFFERS])?;
    let heading = ["snapshots", "by", "NOPs without", "lost", "least", "most"];
    let mut table = Table::new(
        format!(
            "What a ring with {BUFFERS} buffers loses of its own speed, all by the second \
             (batches of {BATCH}, {pairs} pairs of windows of {window:?}; medians)"
        ),
        heading,
    );
    for backend in [Backend::Native, Backend::TaskFile, Backend::Fdinfo] {
        let mut iter = match UringBufIter::options().backend(backend).attach(&ring) {
            Err(error @ uring_bpf_iter::Error::NoBackend { .. }) => {
                bench.leave_out(format!("disturb, {backend}"), error);
                continue;
            }
            iter => iter?,
        };
        for &rate in rates {
            let (mut lost, mut speed) = (Vec::new(), Vec::new());
            for pair in 0..pairs {
                let without = |ring: &mut TestRing| nops(ring, window);
                let mut with = |ring: &mut TestRing| beside(&mut iter, rate, || nops(ring, window));
                // In turns, for a machine that gets faster or slower.
                let (without, with) = if pair % 2 == 0 {
                    (without(&mut ring)?, with(&mut ring)?)
                } else {
                    let with = with(&mut ring)?;
                    (without(&mut ring)?, with)
                };
                lost.push(100.0 * (1.0 - with / without));
                speed.push(without);
            }
            lost.sort_by(f64::total_cmp);
            speed.sort_by(f64::total_cmp);
            table.row([
                rate.to_string(),
                backend.to_string(),
                format!("{:.0}", speed[pairs / 2]),
                format!("{:.1}%", lost[pairs / 2]),
                format!("{:.1}%", lost[0]),
                format!("{:.1}%", lost[pairs - 1]),
            ]);
        }
    }
    bench.tables.push(table);
    Ok(())
}

/// Requests a second, for so long.
fn nops(ring: &mut TestRing, window: Duration) -> Result<f64> {
    let (start, mut done) = (Instant::now(), 0_u64);
    while start.elapsed() < window {
        ring.nops(BATCH)?;
        done += u64::from(BATCH);
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}

/// Runs something while another thread takes snapshots at a rate.
fn beside<T>(iter: &mut UringBufIter, rate: u32, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let looker = scope.spawn(|| look(iter, Duration::from_secs(1) / rate, &over));
        let done = run();
        over.store(true, Ordering::Relaxed);
        looker.join().map_err(|_| "the looker panicked")??;
        done
    })
}

/// The first look is in the middle of the first period.
fn look(
    iter: &mut UringBufIter,
    period: Duration,
    over: &AtomicBool,
) -> uring_bpf_iter::Result<()> {
    let mut next = Instant::now() + period / 2;
    while !over.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now < next {
            // Not for a whole second: the end is waited for.
            thread::sleep((next - now).min(Duration::from_millis(20)));
            continue;
        }
        match iter.snapshot() {
            // A busy ring may refuse; that was a look, too.
            Err(error) if !error.is_retryable() => return Err(error),
            _ => next += period,
        }
    }
    Ok(())
}
