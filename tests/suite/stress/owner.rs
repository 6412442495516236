//! Who makes rings and epoll sets, lets others link to them, and closes them.

use std::os::fd::AsFd;
use std::time::Duration;

use uring_testkit::{BufSpec, EpollSet, IterProgram, PipeWitness, RingBuilder, TestRing};

use super::library::Library;
use super::{Arena, Dice, Link, Refusal};
use crate::suite::native::SOON;

/// Makes a ring, does what owners do, closes it, and wants it gone. One of them
/// looks at it through the library.
pub(super) fn run(arena: &Arena, mut dice: Dice, mut library: Option<Library>) {
    while arena.goes_on() {
        let builder = RingBuilder::new(8);
        let builder = match dice.roll(5) {
            0 => builder.sqpoll(Duration::from_millis(1)),
            1 => builder.defer_taskrun(),
            2 => builder.coop_taskrun(),
            _ => builder,
        };
        let mut witness = PipeWitness::new().expect("pipe");
        let mut ring = builder.build().expect("ring");
        let bufs = 1 + dice.roll(200) as u32;
        ring.register_sparse(bufs).expect("register");
        ring.register_files_sparse(16).expect("register");
        ring.update_files(15, &[Some((witness.end(), 0))])
            .expect("file");
        let mut set = EpollSet::new().expect("epoll");
        set.add(&ring, 1, 1).expect("add");
        attach(arena, &mut dice, &ring, &set);
        for _ in 0..dice.roll(30) {
            let slot = dice.roll(u64::from(bufs)) as u32;
            let spec = (dice.roll(3) > 0).then_some(BufSpec::new(1 + dice.roll(9000) as usize));
            ring.update(slot, &[spec]).expect("update");
            adopt(arena, &mut dice, &mut ring);
            if dice.roll(10) == 0 {
                ring.unregister().expect("unregister");
                ring.register_sparse(bufs).expect("register");
            }
        }
        match &mut library {
            Some(library) => library.look(arena, &mut dice, ring, set),
            None => drop((ring, set)),
        }
        witness.let_go();
        assert!(
            witness.released(SOON).expect("poll"),
            "a closed ring is kept"
        );
        arena.counts.rings.add(1);
        arena.counts.sets.add(1);
    }
}

/// New links for the readers. Old ones go, so that there are never many.
fn attach(arena: &Arena, dice: &mut Dice, ring: &TestRing, set: &EpollSet) {
    let mut new = Vec::new();
    for program in &arena.programs {
        new.extend(link(arena, dice, program, ring, true));
    }
    new.extend(link(arena, dice, arena.epoll, set, false));
    let mut links = arena.links();
    links.extend(new);
    while links.len() > 12 {
        let at = dice.roll(links.len() as u64) as usize;
        links.swap_remove(at);
    }
}

/// None if there was no memory for it: what it is for is there.
fn link(
    arena: &Arena,
    dice: &mut Dice,
    program: &IterProgram,
    to: impl AsFd,
    of_ring: bool,
) -> Option<Link> {
    let link = match arena.ask(dice, "attach", || program.attach(&to)) {
        Ok(link) => link,
        Err(Refusal::Memory) => return None,
        Err(refusal) => panic!("attach: {refusal:?}"),
    };
    arena.counts.links.add(1);
    Some(Link { link, of_ring })
}

/// Puts a link of anybody, or a session of it, into the ring's own table.
fn adopt(arena: &Arena, dice: &mut Dice, ring: &mut TestRing) {
    let slot = dice.roll(15) as u32;
    let links = arena.links();
    let at = dice.roll(links.len().max(1) as u64) as usize;
    let Some(Link { link, .. }) = links.get(at) else {
        return;
    };
    let session = arena.ask(dice, "iter_create", || link.open());
    if session.is_ok() {
        arena.counts.sessions.add(1);
    }
    let entry = match (&session, dice.roll(3)) {
        (Ok(session), 0) => Some((session.as_fd(), 0)),
        (_, 1) => Some((link.as_fd(), 0)),
        _ => None,
    };
    ring.update_files(slot, &[entry]).expect("update");
}
