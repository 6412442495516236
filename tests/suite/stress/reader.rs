//! Who reads what others have linked to.

use std::thread;
use std::time::{Duration, Instant};

use uring_testkit::{words, IterSession};

use super::{Arena, Dice, Refusal};
use crate::suite::native::SOON;

/// Opens sessions of whatever there is and reads them in steps of any size.
pub(super) fn run(arena: &Arena, mut dice: Dice) {
    while arena.goes_on() {
        let Some((mut session, of_ring)) = open(arena, &mut dice) else {
            thread::sleep(Duration::from_micros(200));
            continue;
        };
        arena.counts.sessions.add(1);
        let (all, ended) = read(arena, &mut dice, &mut session);
        arena.counts.records.add(all.len() as u64);
        if ended {
            arena.counts.whole.add(1);
        }
        if of_ring {
            assert_in_order(&all, ended);
        }
    }
}

/// A session of any link, and whether it is one of a ring; none if there is no
/// link, its ring is gone, or there was no memory.
fn open(arena: &Arena, dice: &mut Dice) -> Option<(IterSession, bool)> {
    let links = arena.links();
    let at = dice.roll(links.len().max(1) as u64) as usize;
    let picked = links.get(at)?;
    match arena.ask(dice, "iter_create", || picked.link.open()) {
        Ok(session) => Some((session, picked.of_ring)),
        Err(Refusal::Gone | Refusal::Memory) => None,
        Err(Refusal::Busy) => panic!("iter_create takes no lock"),
    }
}

/// What a session gives until its end, or until its ring is gone, and which of
/// the two it was. A read that was refused is repeated, and nothing is lost.
fn read(arena: &Arena, dice: &mut Dice, session: &mut IterSession) -> (Vec<u64>, bool) {
    let mut buf = vec![0; 8 * (1 + dice.roll(100) as usize)];
    let (mut all, start) = (Vec::new(), Instant::now());
    loop {
        arena.counts.reads.add(1);
        match arena.ask(dice, "read", || session.read(&mut buf)) {
            Ok(0) => return (all, true),
            Ok(n) => all.extend(words(&buf[..n])),
            Err(Refusal::Gone) => return (all, false),
            Err(Refusal::Memory) => {}
            Err(Refusal::Busy) => thread::sleep(Duration::from_micros(dice.roll(1000))),
        }
        assert!(start.elapsed() < SOON, "a session that does not end");
    }
}

/// Each index once, in order; the last of a session that ended is the table's
/// size, which may have shrunk below where the session was. The ring may go after
/// that one and before the read that would say that it was the last.
#[track_caller]
fn assert_in_order(all: &[u64], ended: bool) {
    let (last, indices) = match all.split_last() {
        Some((last, indices)) if ended || *last < indices.len() as u64 => (Some(*last), indices),
        _ => (None, all),
    };
    assert!(!ended || last.is_some(), "a session without an end");
    let want: Vec<u64> = (0..indices.len() as u64).collect();
    assert_eq!(indices, want);
    assert!(
        last.is_none_or(|end| end <= indices.len() as u64),
        "{last:?}"
    );
}
