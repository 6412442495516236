//! `uringctl epoll`: the items of epoll sets, and the sets that watch a file.

mod show;
mod watching;

use std::io::Write;
use std::process::ExitCode;

use clap::{ArgGroup, Args};
use uring_bpf_iter::{
    Backend, DescriptorReader, Descriptors, EpollFinder, EpollItem, EpollReader, EpollSet,
    EpollSurvey, Error, Holder, Snapshot,
};

use crate::args::{Common, Format};
use crate::exit::Stop;
use crate::rings::{check_thread, has_thread};
use crate::run::Run;
use show::Shown;
use watching::{Descriptor, Watching};

#[derive(Args)]
#[command(group(ArgGroup::new("whose").args(["pid", "tid"]).multiple(true)))]
pub(crate) struct Options {
    /// Only the epoll sets of this process
    #[arg(long)]
    pid: Option<u32>,
    /// Only the epoll sets of this thread
    #[arg(long)]
    tid: Option<u32>,
    /// Only the epoll set behind this descriptor of the process or thread
    #[arg(long, requires = "whose")]
    fd: Option<i32>,
    /// Only the sets that watch this very file, and its items: a descriptor of a process
    #[arg(long, value_name = "PID:FD", conflicts_with = "watching_inode")]
    watching: Option<Descriptor>,
    /// Only the sets that watch a file with this inode number, and its items
    #[arg(long, value_name = "INODE")]
    watching_inode: Option<u64>,
    #[command(flatten)]
    common: Common,
}

pub(crate) fn main(options: &Options) -> ExitCode {
    let mut run = Run::new("epoll");
    // A native iterator shows one set: another backend has to find it.
    let find = match options.common.backend() {
        Some(Backend::Native) => None,
        other => other,
    };
    let Some(mut finder) = run.noted(EpollFinder::with_backend(find)) else {
        return run.end();
    };
    run.note_selection(finder.selection());
    let mut looker = Looker::new(options);
    run.repeat(options.common.watch, |run, out| {
        let watching = options.watching(&mut looker)?;
        let survey = options.find(&mut finder)?;
        run.note_unseen(&survey.unseen);
        if survey.sets.is_empty() && watching.is_all() {
            run.note(options.nothing_found(run.is_complete()));
        }
        let mut met = watching::Met::default();
        for set in &survey {
            let shown = match looker.look(options, &watching, set) {
                Ok(shown) => shown,
                // It was closed after it was found.
                Err(error) if options.fd.is_none() && is_gone(&error) => continue,
                Err(error) => {
                    run.note_error(&error);
                    continue;
                }
            };
            if watching.is_all() || !shown.items.is_empty() {
                met.add(&shown.items);
                print(options, &shown, out)?;
            }
        }
        watching.note(run, &met, options.pid);
        Ok(())
    })
}

/// True for a set that was closed after it was found.
fn is_gone(error: &Error) -> bool {
    matches!(
        error,
        Error::NoSuchDescriptor { .. } | Error::NotAnEpoll { .. } | Error::EpollGone { .. }
    )
}

fn print(options: &Options, shown: &Shown<'_>, out: &mut dyn Write) -> Result<(), Stop> {
    match options.common.format {
        Format::Json => shown.print_json(out),
        Format::Table => Ok(shown.print_table(out)?),
    }
}

impl Options {
    fn find(&self, finder: &mut EpollFinder) -> Result<EpollSurvey, Error> {
        check_thread(self.pid, self.tid)?;
        match (self.pid, self.tid, self.fd) {
            (Some(pid), None, Some(fd)) => finder.find_fd(pid, fd),
            (Some(pid), None, None) => finder.find_in(pid),
            (_, Some(tid), None) => finder.find_thread(tid),
            (_, Some(tid), Some(fd)) => {
                let mut survey = finder.find_thread(tid)?;
                let has = |set: &EpollSet| set.fds_of(self.holder(set)).any(|one| one == fd);
                survey.sets.retain(has);
                match survey.sets.is_empty() && survey.unseen.is_empty() {
                    true => Err(Error::NoSuchDescriptor { pid: tid, fd }),
                    false => Ok(survey),
                }
            }
            (None, None, _) => finder.find_all(),
        }
    }

    fn watching(&self, looker: &mut Looker) -> Result<Watching, Error> {
        match (self.watching, self.watching_inode) {
            (Some(descriptor), _) => looker.watching(descriptor),
            (None, Some(inode)) => Ok(Watching::Inode(inode)),
            (None, None) => Ok(Watching::All),
        }
    }

    /// The holder that a set is shown by: the one that was asked for, else the first.
    fn holder<'a>(&self, set: &'a EpollSet) -> &'a Holder {
        let asked = match (self.pid, self.tid) {
            (Some(pid), None) => set.holder(pid, self.fd),
            // Those of the thread that was asked for come first.
            (_, Some(tid)) => {
                let mut holders = set.holders().iter();
                holders.find(|holder| has_thread(holder.pid, tid))
            }
            (None, None) => None,
        };
        asked.unwrap_or(set.owner())
    }

    fn nothing_found(&self, complete: bool) -> String {
        let of = match (self.pid, self.tid) {
            (Some(pid), None) => format!("process {pid}"),
            (_, Some(tid)) => format!("thread {tid}"),
            (None, None) if complete => return "no epoll set found".into(),
            (None, None) => return "no epoll set found in what could be inspected".into(),
        };
        match complete {
            true => format!("{of} has no epoll set"),
            false => format!("no epoll set found in what could be inspected of {of}"),
        }
    }
}

/// Looks at one set after another, with what was loaded for those before.
struct Looker {
    backend: Option<Backend>,
    reader: EpollReader,
    descriptors: Option<DescriptorReader>,
}

impl Looker {
    fn new(options: &Options) -> Self {
        let backend = options.common.backend();
        Self {
            backend,
            reader: EpollReader::options().backend(backend).epoll_reader(),
            descriptors: None,
        }
    }

    fn look<'a>(
        &mut self,
        options: &Options,
        watching: &Watching,
        set: &'a EpollSet,
    ) -> Result<Shown<'a>, Error> {
        let snapshot: Snapshot<'_, EpollItem> = match options.common.raw {
            true => self.reader.snapshot_raw(set)?,
            false => self.reader.snapshot(set)?,
        };
        let holder = options.holder(set);
        let mut shown = Shown {
            set,
            holder,
            asked: options.fd,
            nr_items: snapshot.len(),
            consistency: snapshot.consistency(),
            backend: snapshot.backend(),
            items: snapshot.to_vec(),
            descriptors: None,
        };
        shown.items.retain(|item| watching.is(item));
        if shown.backend != Backend::Fdinfo && !shown.items.is_empty() {
            let reader = self.descriptors()?;
            shown.descriptors = Some(reader.read_thread(holder.tid)?);
        }
        Ok(shown)
    }

    fn descriptors(&mut self) -> Result<&mut DescriptorReader, Error> {
        let reader = match self.descriptors.take() {
            Some(reader) => reader,
            None => DescriptorReader::new()?,
        };
        Ok(self.descriptors.insert(reader))
    }

    /// The file behind a descriptor.
    fn watching(&mut self, descriptor: Descriptor) -> Result<Watching, Error> {
        let Descriptor { pid, fd } = descriptor;
        if self.backend == Some(Backend::Fdinfo) {
            return Err(watching::needs_bpf());
        }
        let reader = self.descriptors()?;
        let of_process: Descriptors = reader.read(pid)?;
        if of_process.contains(fd) {
            return Ok(Watching::File(descriptor, of_process));
        }
        for tid in watching::threads(pid)? {
            let of_thread = reader.read_thread(tid)?;
            if of_thread.contains(fd) {
                return Ok(Watching::File(descriptor, of_thread));
            }
        }
        Err(Error::NoSuchDescriptor { pid, fd })
    }
}
