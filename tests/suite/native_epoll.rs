//! Epoll sets by native iterators: every item once, also where several files have
//! one number, and where items come and go between two reads.

use std::collections::BTreeSet;

use uring_testkit::EpollSet;

use super::native::{eventfds, program, read, read_all, set_of};
use super::native_resume::assert_all_sizes;
use super::{done, Outcome};

native_trials![Any:
    items_by_any_size_of_read,
    a_set_that_changes,
];

/// Four files have one number among others: a walk that went by numbers would
/// find the first of them for ever.
fn crowded_set() -> EpollSet {
    let mut set = set_of(20);
    set.keep_under_one_number(eventfds(4), 1, 1000)
        .expect("add");
    for (data, file) in (20..).zip(eventfds(20)) {
        set.keep(file, 1, data).expect("add");
    }
    set
}

fn items_by_any_size_of_read() -> Outcome {
    let empty = EpollSet::new()?;
    let link = program("epoll").attach(&empty)?;
    assert_eq!(assert_all_sizes(&link), [0], "no item");
    let set = crowded_set();
    let link = program("epoll").attach(&set)?;
    let all = assert_all_sizes(&link);
    assert_eq!(all.len(), set.expected().len() + 1);
    assert_eq!(all.last(), Some(&0), "the end, and no item before it");
    assert_eq!(
        all.iter().collect::<BTreeSet<_>>().len(),
        all.len(),
        "each once"
    );
    done()
}

/// An item that is to be shown next goes away, by its number or by its file.
fn a_set_that_changes() -> Outcome {
    let program = program("epoll");
    for closing in [false, true] {
        let mut files = eventfds(24).collect::<Vec<_>>();
        let mut set = EpollSet::new()?;
        for (data, file) in (0..).zip(&files) {
            set.add(file, 1, data)?;
        }
        let link = program.attach(&set)?;
        let before = read_all(&mut link.open()?, 4096);
        let mut session = link.open()?;
        let mut first = [0; 8];
        read(&mut session, &mut first);
        assert_eq!(u64::from_ne_bytes(first), before[0]);
        // Half of them go, whichever is next.
        let gone = files.split_off(12);
        if !closing {
            for file in &gone {
                set.remove(file)?;
            }
        }
        drop(gone);
        let after = read_all(&mut link.open()?, 4096);
        assert_eq!(after.len(), 13);
        // What is left of it is what is left of them, in the same order.
        let want: Vec<u64> = after.into_iter().filter(|epi| *epi != before[0]).collect();
        assert_eq!(read_all(&mut session, 8), want, "closing: {closing}");
        set.keep(eventfds(1).next().expect("one"), 1, 77)?;
        assert!(
            read_all(&mut session, 8).is_empty(),
            "the end stays the end"
        );
    }
    done()
}
