//! All items of an epoll set, each of a file of its own.

use std::os::fd::{AsFd, AsRawFd};

use rustix::event::{eventfd, EventfdFlags};
use uring_bpf_iter::{Backend, EpollItem, EpollIter};
use uring_testkit::EpollSet;

use crate::bench::{Bench, Candidate, Case, Look, Result};
use crate::limits;
use crate::text::{self, Text};

const ITEMS: &[usize] = &[1, 64, 1024, 10_000, 100_000];

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let numbers = if bench.once { &ITEMS[..2] } else { ITEMS };
    for &items in numbers {
        if let Err(why) = limits::descriptors(items) {
            bench.leave_out(format!("epoll, {items}"), why);
            continue;
        }
        let mut set = EpollSet::new()?;
        for data in 0..items as u64 {
            let file = eventfd(0, EventfdFlags::CLOEXEC)?;
            set.keep(file, libc::EPOLLIN as u32, data)?;
        }
        let mut all = Vec::new();
        for (name, backend) in [
            ("native", Backend::Native),
            ("task-file", Backend::TaskFile),
            ("fdinfo, this crate", Backend::Fdinfo),
        ] {
            let made = library(name, &set, backend);
            all.extend(bench.candidate("epoll", name, made)?);
        }
        all.push(read_and_parsed(&set)?);
        let case = Case {
            group: "epoll",
            items,
            item: "item",
            each: true,
        };
        bench.compare(case, all)?;
    }
    Ok(())
}

fn library<'a>(name: &'static str, set: &EpollSet, backend: Backend) -> Result<Candidate<'a>> {
    let mut iter = EpollIter::options().backend(backend).attach(set)?;
    let fields = |item: &EpollItem| {
        let events = u64::from(item.events().bits());
        (item.fd() as u64, events, item.data())
    };
    same(iter.snapshot()?.iter().map(fields), set)?;
    Ok(Candidate::new(name, move || {
        Ok(iter.snapshot()?.iter().map(EpollItem::data).sum())
    }))
}

fn read_and_parsed<'a>(set: &EpollSet) -> Result<Candidate<'a>> {
    let mut text = Text::open(std::process::id(), set.as_fd().as_raw_fd())?;
    let mut items = Vec::new();
    let mut look = move |look: Look<'_, (u64, u64, u64)>| {
        text::items(text.read()?, &mut items).ok_or("no list of items in fdinfo")?;
        look(&items)
    };
    look(&|items| same(items.iter().copied(), set).map(|()| 0))?;
    Ok(Candidate::new("fdinfo, read and parsed", move || {
        look(&|items| Ok(items.iter().map(|(_, _, data)| data).sum()))
    }))
}

/// Whether these are the items, in whatever order.
fn same(seen: impl Iterator<Item = (u64, u64, u64)>, set: &EpollSet) -> Result<()> {
    let mut seen: Vec<_> = seen.collect();
    seen.sort_unstable_by_key(|(_, _, data)| *data);
    let added = set.expected().iter();
    match seen
        .into_iter()
        .eq(added.map(|item| (item.fd as u64, u64::from(item.events), item.data)))
    {
        true => Ok(()),
        false => Err("other items than those that were added".into()),
    }
}
