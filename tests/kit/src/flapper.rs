//! [`Flapper`]: a ring whose table never rests, and the judge that tells a
//! whole view of it from a torn one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::buf::{BufSpec, Placed, Registered};
use crate::ring::TestRing;
use crate::sys::{self, page_size};
use crate::uapi::{self, IoVec};

/// How a [`Flapper`] gets from one state to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flap {
    /// One IORING_REGISTER_BUFFERS_UPDATE of all slots.
    Update,
    /// Unregister, then register: between the two there is no table.
    Reregister,
}

/// What a snapshot of a flapping ring turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    /// State A, whole.
    A,
    /// State B, whole.
    B,
    /// No buffers: between unregister and register.
    Empty,
    /// None of these: slots of different states, missing, or unheard of.
    Torn,
}

/// The two states of a flapping table. No slot has an address, a length or a
/// tag in common between them or with another slot of its own state (lengths
/// are shared inside one state).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct States {
    /// The state the table starts in.
    pub a: Vec<Registered>,
    /// The other.
    pub b: Vec<Registered>,
}

impl States {
    /// Judges a snapshot: what it saw in each slot, in order of slots.
    pub fn view<T: PartialEq>(
        &self,
        seen: impl IntoIterator<Item = T>,
        key: impl Fn(&Registered) -> T,
    ) -> View {
        let seen: Vec<T> = seen.into_iter().collect();
        let is = |state: &[Registered]| {
            state.len() == seen.len() && state.iter().zip(&seen).all(|(buf, s)| key(buf) == *s)
        };
        if seen.is_empty() {
            View::Empty
        } else if is(&self.a) {
            View::A
        } else if is(&self.b) {
            View::B
        } else {
            View::Torn
        }
    }

    /// Judges by tag alone.
    pub fn view_tags(&self, tags: impl IntoIterator<Item = u64>) -> View {
        self.view(tags, |buf| buf.tag)
    }

    /// Judges by address and length, for a reader that knows no tags.
    pub fn view_ranges(&self, ranges: impl IntoIterator<Item = (u64, u64)>) -> View {
        self.view(ranges, |buf| (buf.addr, buf.len))
    }
}

/// A thread that changes the whole table of a ring as fast as it can; stops on
/// drop.
#[derive(Debug)]
pub struct Flapper {
    ring: Option<Arc<TestRing>>,
    states: States,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<Placed>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    flips: AtomicU64,
    rest_ns: AtomicU64,
}

impl Flapper {
    /// Registers `slots` buffers of one page in a ring without a table, and
    /// sets the thread going.
    ///
    /// Every replaced buffer posts its tag; the thread drains the completion
    /// queue, fastest when that has room for `slots` of them.
    ///
    /// # Errors
    /// Those of registration. A single-issuer ring fails with EEXIST in
    /// [`stop`](Self::stop), unless it is still disabled: the thread is not its
    /// issuer.
    pub fn start(mut ring: TestRing, slots: usize, how: Flap) -> io::Result<Self> {
        let page = page_size();
        let spec_a = |i: usize| Some(BufSpec::new(page).tagged(0xA000_0000_0000 | i as u64));
        let spec_b = |i: usize| {
            Some(
                BufSpec::new(page - 128)
                    .at(64)
                    .tagged(0xB000_0000_0000 | i as u64),
            )
        };
        let a = Placed::new(&(0..slots).map(spec_a).collect::<Vec<_>>())?;
        let b = Placed::new(&(0..slots).map(spec_b).collect::<Vec<_>>())?;
        let states = States {
            a: a.slots.iter().flatten().copied().collect(),
            b: b.slots.iter().flatten().copied().collect(),
        };
        sys::register_tagged(ring.target()?, &a.iovecs(), &a.tags())?;
        ring.set_expected(a.slots.clone(), Vec::new());

        let (ring, shared) = (Arc::new(ring), Arc::new(Shared::default()));
        let thread = {
            let (ring, shared) = (Arc::clone(&ring), Arc::clone(&shared));
            let body = move || flap(&ring, a, b, how, &shared);
            thread::Builder::new().name("flapper".into()).spawn(body)?
        };
        Ok(Self {
            ring: Some(ring),
            states,
            shared,
            thread: Some(thread),
        })
    }

    /// The ring. Its oracle stands still: ask [`states`](Self::states).
    pub fn ring(&self) -> &TestRing {
        self.ring.as_ref().expect("only stop and drop take it")
    }

    /// The states between which the table flips.
    pub fn states(&self) -> &States {
        &self.states
    }

    /// How often the table has changed from one state to the other.
    pub fn flips(&self) -> u64 {
        self.shared.flips.load(Ordering::Relaxed)
    }

    /// Lets the table be for so long after each change from now on: a reader that
    /// only tries the lock would hardly ever get it otherwise.
    pub fn rest(&self, between: Duration) {
        let ns = u64::try_from(between.as_nanos()).unwrap_or(u64::MAX);
        self.shared.rest_ns.store(ns, Ordering::Relaxed);
    }

    /// Whether the thread goes on; if not, [`stop`](Self::stop) says why.
    pub fn is_running(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }

    /// Stops, and gives back the ring with a true oracle.
    ///
    /// # Errors
    /// What the kernel said if it ended the thread.
    pub fn stop(mut self) -> io::Result<TestRing> {
        let last = self.join().expect("joined only here and in drop")?;
        let ring = self.ring.take().expect("taken only here");
        let mut ring = Arc::try_unwrap(ring).expect("the thread has ended");
        ring.set_expected(last.slots, last.maps);
        Ok(ring)
    }

    fn join(&mut self) -> Option<io::Result<Placed>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let panicked = |_| Err(io::Error::other("the flapper panicked"));
        Some(self.thread.take()?.join().unwrap_or_else(panicked))
    }
}

impl Drop for Flapper {
    fn drop(&mut self) {
        let _nobody_asked = self.join();
    }
}

impl AsFd for Flapper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring().as_fd()
    }
}

/// Flips until told to stop; returns the state that the table is left in.
fn flap(ring: &TestRing, a: Placed, b: Placed, how: Flap, shared: &Shared) -> io::Result<Placed> {
    struct Side {
        placed: Placed,
        iovecs: Vec<IoVec>,
        tags: Vec<u64>,
    }
    let side = |p: Placed| Side {
        iovecs: p.iovecs(),
        tags: p.tags(),
        placed: p,
    };
    let (mut now, mut next) = (side(a), side(b));
    let target = ring.target()?;
    while !shared.stop.load(Ordering::Relaxed) {
        ring.drain();
        match how {
            Flap::Update => {
                let done = sys::update_buffers(target, 0, &next.iovecs, &next.tags)?;
                if done < next.tags.len() {
                    let text = format!("only {done} of {} slots flipped", next.tags.len());
                    return Err(io::Error::other(text));
                }
            }
            Flap::Reregister => {
                sys::register_bare(target, uapi::UNREGISTER_BUFFERS)?;
                sys::register_tagged(target, &next.iovecs, &next.tags)?;
            }
        }
        std::mem::swap(&mut now, &mut next);
        shared.flips.fetch_add(1, Ordering::Relaxed);
        // A sleep would be far longer than what is asked for.
        let rest = Duration::from_nanos(shared.rest_ns.load(Ordering::Relaxed));
        let changed = Instant::now();
        while changed.elapsed() < rest && !shared.stop.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    }
    Ok(now.placed)
}

#[cfg(test)]
mod tests {
    use super::{Registered, States, View};

    fn states() -> States {
        let state = |base: u64| {
            let buf = |i| Registered {
                addr: base + i * 4096,
                len: base,
                tag: base | i,
            };
            (0..4).map(buf).collect::<Vec<_>>()
        };
        States {
            a: state(0xA000),
            b: state(0xB000),
        }
    }

    #[test]
    fn the_judge_knows_whole_from_torn() {
        let states = states();
        let tags = |bufs: &[Registered]| bufs.iter().map(|buf| buf.tag).collect::<Vec<_>>();
        let (a, b) = (tags(&states.a), tags(&states.b));
        assert_eq!(states.view_tags(a.clone()), View::A);
        assert_eq!(states.view_tags(b.clone()), View::B);
        assert_eq!(states.view_tags([]), View::Empty);
        assert_eq!(
            states.view_ranges(states.b.iter().map(|r| (r.addr, r.len))),
            View::B
        );

        for torn in 0..a.len() {
            let mut mixed = a.clone();
            mixed[torn] = b[torn];
            assert_eq!(
                states.view_tags(mixed),
                View::Torn,
                "slot {torn} of the other state"
            );
        }
        assert_eq!(
            states.view_tags(a[1..].iter().copied()),
            View::Torn,
            "a slot is missing"
        );
        assert_eq!(
            states.view_tags(a.iter().rev().copied()),
            View::Torn,
            "order matters"
        );
        assert_eq!(states.view_tags([0; 4]), View::Torn, "tags of nobody");
    }
}
