//! What the kernel's verifier looks at before a search or an iterator begins: much of
//! what a short run costs, and counted, not timed, so the same each time.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;

use rustix::event::{eventfd, EventfdFlags};
use uring_bpf_iter::{Backend, BufPages, EpollFinder, EpollIter, UringBufIter, UringFileIter};
use uring_testkit::{page_size, BufSpec, EpollSet, RingBuilder};

use super::inner::expect_done;
use super::oracle::{finder, kernel};
use super::results::skip;
use super::{done, run, Outcome};

trials![programs_are_within_their_bounds];

const NAMES: [&str; 6] = ["search", "buffers", "files", "pages", "items", "sets"];

/// Instructions that the verifier may look at for each of these, by the series of the
/// kernel: about a quarter more than it did when this was written.
const BOUNDS: [((u32, u32), [u32; 6]); 4] = [
    // search, buffers, files, pages, items, sets
    ((6, 1), [6_000, 6_000, 9_100, 8_300, 19_800, 400]),
    ((6, 12), [9_600, 6_100, 8_000, 5_100, 9_100, 7_300]),
    ((6, 18), [3_500, 4_900, 6_500, 4_700, 9_100, 1_400]),
    ((7, 2), [3_300, 4_400, 5_900, 4_100, 9_000, 1_300]),
];

/// In a process of its own, which has no programs but these.
fn programs_are_within_their_bounds() -> Outcome {
    let said = expect_done(&mut run::again("verified"));
    print!("{said}");
    let seen: BTreeMap<&str, u32> = said.lines().filter_map(parse).collect();
    assert_eq!(seen.len(), NAMES.len(), "{said}");
    let (major, minor) = kernel();
    let Some((_, bounds)) = BOUNDS.iter().find(|(of, _)| *of == (major, minor)) else {
        return skip(format!("no bounds are recorded for Linux {major}.{minor}"));
    };
    let over = NAMES
        .iter()
        .zip(bounds)
        .filter(|(name, bound)| seen[*name] > **bound);
    let over: Vec<_> = over.collect();
    assert!(over.is_empty(), "over their bounds: {over:?}\n{said}");
    done()
}

fn parse(line: &str) -> Option<(&str, u32)> {
    let (name, verified) = line.strip_prefix("verified for ")?.split_once(": ")?;
    Some((name, verified.parse().ok()?))
}

/// Opens one after another, with a line for each.
pub(super) fn inside() {
    let mut ring = RingBuilder::new(8).build().expect("ring");
    ring.register(&[BufSpec::new(page_size())])
        .expect("register buffers");
    let event = eventfd(0, EventfdFlags::CLOEXEC).expect("eventfd");
    ring.register_files(&[event.as_fd()])
        .expect("register files");
    let mut set = EpollSet::new().expect("epoll");
    set.keep(event, 1, 0).expect("add");
    assert_eq!(verified(), 0, "nothing is loaded");
    let backend = Backend::TaskFile;
    tell("search", finder(backend));
    let options = UringBufIter::options().backend(backend);
    tell("buffers", options.attach(&ring).expect("attach"));
    let options = UringFileIter::options().backend(backend);
    tell("files", options.attach(&ring).expect("attach"));
    let options = BufPages::options().backend(backend);
    tell("pages", options.attach(&ring).expect("attach"));
    let options = EpollIter::options().backend(backend);
    tell("items", options.attach(set.as_fd()).expect("attach"));
    tell(
        "sets",
        EpollFinder::with_backend(backend).expect("a finder"),
    );
}

fn tell<T>(name: &str, open: T) {
    let verified = verified();
    assert_ne!(verified, 0, "{name}: nothing is loaded");
    println!("verified for {name}: {verified}");
    drop(open);
}

/// Of all programs that this process has a descriptor of.
fn verified() -> u32 {
    let infos = fs::read_dir("/proc/self/fdinfo").expect("fdinfo");
    // One of them is that of the folder itself, which is closed by now.
    let infos: Vec<_> = infos.map(|info| info.expect("an entry").path()).collect();
    let texts = infos
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok());
    let programs = texts.filter(|text| text.lines().any(|line| line.starts_with("prog_type:")));
    programs
        .map(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("verified_insns:"));
            let number = line.and_then(|number| number.trim().parse::<u32>().ok());
            number.unwrap_or_else(|| panic!("no number of instructions: {text}"))
        })
        .sum()
}
