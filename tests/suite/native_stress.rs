//! A stress of seconds: nothing is seen that is not there, and at the end nothing
//! is left. The one of minutes is `soak.rs`.

use super::native::Pins;
use super::stress::{length, Arena};
use super::{done, Outcome};

native_trials![Alone: rings_come_and_go_under_their_readers];

fn rings_come_and_go_under_their_readers() -> Outcome {
    let length = length();
    let pins = Pins::now();
    let arena = Arena::new(None);
    let failed = arena.run(length, |_| {});
    println!("{length:?}: {}", arena.counts);
    assert_eq!(failed, 0, "threads failed");
    let untried = arena.counts.untried();
    assert!(untried.is_empty(), "never happened: {untried:?}");
    drop(arena);
    pins.assert_back();
    done()
}
