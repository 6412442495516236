//! The stress for minutes, with allocations that fail, on a kernel that checks
//! itself, and a summary at the end. `cargo xtask soak` starts it, in a machine
//! whose log it looks through afterwards.

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
    let mut untried = arena.counts.untried();
    if arena.counts.memory.get() == 0 {
        untried.push("ENOMEM");
    }
    let mut summary = arena.counts.named().to_vec();
    drop(arena);
    let pinned = pins.more().unsigned_abs();
    let report = leaks(std::process::id()).expect("kmemleak");
    let leaked = report.matches("unreferenced object").count() as u64;
    print!("{report}");

    let wrong = [
        ("threads that failed", failed as u64),
        ("pages still pinned", pinned),
        ("objects leaked", leaked),
    ];
    summary.extend(wrong);
    println!("\n{} s of stress on Linux {}:", passed.as_secs(), kernel());
    for (name, count) in summary {
        println!("{count:>12} {name}");
    }
    let wrong = wrong.map(|(_, count)| count);
    assert_eq!(wrong, [0; 3], "the kernel is not what it must be");
    assert!(untried.is_empty(), "never happened: {untried:?}");
}

fn kernel() -> String {
    let uname = rustix::system::uname();
    uname.release().to_string_lossy().into_owned()
}
