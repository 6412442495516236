//! Prints an epoll set and its items.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::json;
use uring_bpf_iter::{
    Backend, Consistency, Descriptors, EpollItem, EpollSet, FileKind, Holder, NumberNow,
};

use crate::exit::Stop;
use crate::json::{time_ms, Line};
use crate::table::Table;
use crate::text::{count, device, how_read, kind, name, open_flags, or_unknown};

/// The number of holders that are named above a table, beside the one that the set is
/// shown by.
const NAMED: usize = 4;

/// A set, and those of its items that are to be shown.
pub(super) struct Shown<'a> {
    pub(super) set: &'a EpollSet,
    /// The holder that it is shown by.
    pub(super) holder: &'a Holder,
    /// The descriptor that was asked for.
    pub(super) asked: Option<i32>,
    pub(super) nr_items: usize,
    pub(super) consistency: Consistency,
    pub(super) backend: Backend,
    pub(super) items: Vec<EpollItem>,
    /// Of the holder; `None` without items, and where they are not known.
    pub(super) descriptors: Option<Descriptors>,
}

/// The keys that follow the facts of an item.
#[derive(Serialize)]
struct Item<'a> {
    #[serde(flatten)]
    item: &'a EpollItem,
    fd_now: Option<NumberNow>,
    owner_fds: Option<&'a [i32]>,
}

impl Shown<'_> {
    /// All numbers that the set has where it is shown.
    fn fds(&self) -> Vec<i32> {
        self.set.fds_of(self.holder).collect()
    }

    fn fd_now(&self, item: &EpollItem) -> Option<NumberNow> {
        self.descriptors.as_ref()?.now(item)
    }

    /// The numbers that the holder has for the file, `None` if that is not known.
    fn owner_fds(&self, item: &EpollItem) -> Option<&[i32]> {
        self.fd_now(item)?;
        Some(self.descriptors.as_ref()?.of(item.file()))
    }

    pub(super) fn print_json(&self, out: &mut dyn Write) -> Result<(), Stop> {
        let holder = self.holder;
        let key = json!({
            "pid": holder.pid,
            "tid": holder.tid,
            "epoll_fd": self.asked.or(holder.fd()),
        });
        let read = json!({
            "epoll_fds": self.fds(),
            "time_ms": time_ms(),
            "name": holder.name,
            "holders": self.set.holders(),
            "nr_items": self.nr_items,
            "backend": self.backend.to_string(),
            "consistency": self.consistency.to_string(),
        });
        Line::new("epoll").with(&key)?.with(read)?.print(out)?;
        let mut line = Line::new("item").with(&key)?;
        for item in &self.items {
            let item = Item {
                item,
                fd_now: self.fd_now(item),
                owner_fds: self.owner_fds(item),
            };
            line.print_with(item, out)?;
        }
        Ok(())
    }

    pub(super) fn print_table(&self, out: &mut dyn Write) -> io::Result<()> {
        let all = self.nr_items == self.items.len();
        writeln!(
            out,
            "epoll set {}{}: {}{} ({})",
            held(self.set, self.holder),
            self.others(),
            count(self.nr_items, "item"),
            match all {
                true => String::new(),
                false => format!(", {} shown", self.items.len()),
            },
            how_read(self.consistency, "ep->mtx"),
        )?;
        if !self.items.is_empty() {
            let header = [
                "FD", "FD NOW", "OPEN AS", "EVENTS", "DATA", "KIND", "INODE", "DEVICE", "FLAGS",
                "POSITION",
            ];
            let mut table = Table::new(header, &[0, 4, 6, 7, 8, 9]);
            for item in &self.items {
                table.add(self.row(item));
            }
            table.print_indented(out)?;
        }
        writeln!(out)
    }

    /// The other tables of descriptors that the set is in.
    fn others(&self) -> String {
        let shown = (self.holder.pid, self.holder.tid);
        let mut known = BTreeSet::from([shown]);
        let others: Vec<&Holder> = (self.set.holders().iter())
            .filter(|holder| known.insert((holder.pid, holder.tid)))
            .collect();
        let mut text = String::new();
        for holder in others.iter().take(NAMED) {
            // Writing to a string does not fail.
            let _ = write!(text, ", also {}", held(self.set, holder));
        }
        if let more @ 1.. = others.len().saturating_sub(NAMED) {
            let _ = write!(text, ", and {}", count(more, "other holder"));
        }
        text
    }

    fn row(&self, item: &EpollItem) -> [String; 10] {
        let file = item.file();
        let known = file.kind() != FileKind::Unknown;
        [
            item.fd().to_string(),
            or_unknown(self.fd_now(item)),
            or_unknown(self.owner_fds(item).map(|fds| match fds {
                [] => "-".into(),
                fds => numbers(fds),
            })),
            item.events().to_string(),
            format!("{:#x}", item.data()),
            or_unknown(known.then(|| kind(file))),
            file.inode().to_string(),
            device(file),
            or_unknown(known.then(|| open_flags(file))),
            file.position().to_string(),
        ]
    }
}

/// `fd 4,7 of nginx[12] thread 14`
fn held(set: &EpollSet, holder: &Holder) -> String {
    let fds: Vec<i32> = set.fds_of(holder).collect();
    let thread = match holder.tid == holder.pid {
        true => String::new(),
        false => format!(" thread {}", holder.tid),
    };
    let (name, fds) = (name(holder), numbers(&fds));
    format!("fd {fds} of {name}[{}]{thread}", holder.pid)
}

fn numbers(fds: &[i32]) -> String {
    let fds: Vec<String> = fds.iter().map(i32::to_string).collect();
    fds.join(",")
}
