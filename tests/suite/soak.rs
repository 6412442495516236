//! The stress for minutes, with allocations that fail, on a kernel that checks
//! itself, and a summary at the end. `cargo xtask soak` starts it, in a machine
//! whose log it looks through afterwards.

use std::fmt::Display;
use std::time::Duration;

use uring_testkit::{has_kmemleak, leaks, Faults};

use super::native::Pins;
use super::stress::{length, Arena};

/// Panics, after the summary, if anything was not as it must be.
pub(super) fn inside() {
    let faults = Faults::new().expect("a soak wants allocations that fail");
    assert!(has_kmemleak(), "a soak wants kmemleak");
    let (length, pins) = (length(), Pins::now());
    let arena = Arena::new(Some(faults));
    let mut passed = Duration::ZERO;
    let failed = arena.run(length, |now| {
        let minute = now.as_secs() / 60;
        if minute > passed.as_secs() / 60 {
            println!("minute {minute}: {}", arena.counts);
        }
        passed = now;
    });
    println!("\n{} s of stress on Linux {}:", passed.as_secs(), kernel());
    for (name, count) in arena.counts.named() {
        show(count, name);
    }
    let mut untried = arena.counts.untried();
    if arena.counts.memory.get() == 0 {
        untried.push("ENOMEM");
    }
    drop(arena);
    let pinned = pins.more();
    show(failed, "threads that failed");
    show(pinned, "pages still pinned");
    // Takes minutes: what came before it is told.
    let report = leaks(std::process::id()).expect("kmemleak");
    let leaked = report.matches("unreferenced object").count();
    show(leaked, "objects leaked");
    print!("{report}");
    assert!(
        failed == 0 && pinned == 0 && leaked == 0,
        "the kernel has not stood it"
    );
    assert!(untried.is_empty(), "never happened: {untried:?}");
}

/// A line of the summary.
fn show(count: impl Display, name: &str) {
    println!("{count:>12} {name}");
}

fn kernel() -> String {
    let uname = rustix::system::uname();
    uname.release().to_string_lossy().into_owned()
}
