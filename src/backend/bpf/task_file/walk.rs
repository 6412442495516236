//! Walks a table without its lock.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::backend::bpf::iterator;
use crate::backend::bpf::maps::{self, Maps};
use crate::backend::bpf::program::{Forms, Programs};
use crate::backend::bpf::reply::{judge, no_room};
use crate::backend::bpf::require;
use crate::backend::bpf::table::Table;
use crate::backend::bpf::wire::{self, Mode, Status, WalkReply, WalkRequest};
use crate::backend::select::NotOpened;
use crate::choice::{Backend, Reason};
use crate::error::{Contention, Error, Missed, Result};
use crate::kernel;
use crate::locator::{Kind, Locator, Place};
use crate::pidfd;
use crate::record::{BufFields, Consistency, Plain, Snapshot};
use crate::retry::Retry;
use crate::ring::Via;
use crate::tasks::Tasks;

/// Look where one task has it, by one system call: from 6.14 on, and from 6.10 on in
/// the initial pid namespace.
const CALL: [&[&CStr]; 2] = [&[c"dump_call"], &[c"dump_call_initial"]];
/// Look there, or anywhere in a process, by an iterator.
const TASK: Forms = Forms {
    direct: &[c"dump_task"],
    compat: &[c"dump_task_compat", c"dump_vma_compat"],
};

/// For so long the memory of a table that was read is still near the processor.
const NEAR: Duration = Duration::from_millis(1);

/// Reads a table of one ring or an epoll set, again and again.
pub(crate) struct Walker<R: 'static> {
    table: &'static Table<R>,
    locator: Locator,
    /// The place of the locator that had it last.
    at: usize,
    /// The place where a search has met it, which the locator does not name.
    met: Option<Place>,
    /// The epoll set that a search has found, or that was met, opaque: it is that one.
    set: u64,
    /// When the table was read last.
    read_at: Option<Instant>,
    programs: Loaded<R>,
    /// Loaded for mappings, and for what is no longer where it was.
    search: Option<Loaded<R>>,
    /// The last answer is that of `search`.
    searched: bool,
}

/// Programs, and the maps by which they are spoken to.
struct Loaded<R: 'static> {
    programs: Programs,
    maps: Maps<R>,
    capacity: usize,
    by: By,
    /// Of the tasks that were looked at last: a link of each program that was used.
    links: (Option<Tasks>, [Option<OwnedFd>; 2]),
}

/// How programs are run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// By a system call, which finds a task by its number.
    Call,
    /// By an iterator over tasks.
    Task,
}

impl<R: Plain> Walker<R> {
    pub(crate) fn open(table: &'static Table<R>, locator: Locator) -> Result<Self, NotOpened> {
        require::bpf()?;
        let programs = match Loaded::by_call(table, table.first)? {
            Some(programs) => programs,
            None => Loaded::by_task(table, table.first)?,
        };
        Ok(Self {
            table,
            at: 0,
            met: None,
            set: locator.set,
            locator,
            read_at: None,
            programs,
            search: None,
            searched: false,
        })
    }

    /// Turns to another ring; all that is loaded stays so.
    pub(crate) fn attach(&mut self, locator: Locator) {
        // What is known of the same ring is known of it still.
        if locator.kind == Kind::Epoll || locator.inode != self.locator.inode {
            self.met = None;
        }
        self.set = locator.set;
        self.locator = locator;
        self.at = 0;
        self.read_at = None;
    }

    pub(crate) fn locator(&self) -> &Locator {
        &self.locator
    }

    /// The same by the place where a search has met it, if one has.
    pub(crate) fn found_locator(&self) -> Option<Locator> {
        self.met.map(|place| Locator {
            places: vec![place],
            ..self.locator
        })
    }

    /// Reads the table without its lock.
    pub(crate) fn read(&mut self, mode: Mode, slot: u64, retry: &Retry) -> Result<Snapshot<'_, R>> {
        let name = self.locator.name();
        let (nr, attempts) = retry.run(name, || {
            let nr = self.walk(mode, slot)?;
            // Without the lock it may have met memory that was freed and used anew.
            match mode == Mode::Raw && self.records(nr).is_err() {
                true => Err(Missed::Busy(Contention::Changed)),
                false => Ok(nr),
            }
        })?;
        Ok(Snapshot {
            records: self.records(nr)?,
            consistency: match mode {
                Mode::Raw => Consistency::Raw,
                _ => Consistency::Verified,
            },
            backend: Backend::TaskFile,
            unknown: BufFields::empty(),
            attempts,
        })
    }

    /// Walks the table once: its size. The slot says which buffer, where each has
    /// a table.
    pub(crate) fn walk(&mut self, mode: Mode, slot: u64) -> Result<usize, Missed> {
        loop {
            let reply = self.ask(mode, slot)?;
            match maps::room_for(self.table, reply.nr_slots as usize) {
                Some(capacity) if reply.status() == Some(Status::TooMany) => {
                    let table = self.table;
                    self.answered().grow(table, capacity)?;
                }
                _ => return judge(self.table, &self.locator, slot, &reply),
            }
        }
    }

    /// Looks only at the owner of the lock, at the first place that still has the
    /// ring.
    pub(crate) fn peek(&mut self, slot: u64) -> Result<WalkReply> {
        self.ask(Mode::Peek, slot)
    }

    /// The request for a walk, but for its mode and its place.
    pub(crate) fn request(&self, slot: u64) -> WalkRequest {
        let is_near = |read: Instant| read.elapsed() < NEAR;
        WalkRequest {
            inode: self.locator.inode,
            slot,
            set: self.set,
            cold: (!self.read_at.is_some_and(is_near)).into(),
            ..WalkRequest::default()
        }
    }

    /// The records of the last walk.
    pub(crate) fn records(&self, nr: usize) -> Result<&[R]> {
        match &self.search {
            Some(search) if self.searched => search.maps.records(nr),
            _ => self.programs.maps.records(nr),
        }
    }

    /// Those that gave the last answer.
    fn answered(&mut self) -> &mut Loaded<R> {
        match &mut self.search {
            Some(search) if self.searched => search,
            _ => &mut self.programs,
        }
    }

    /// The reply of one walk, at the first place that still has it.
    fn ask(&mut self, mode: Mode, slot: u64) -> Result<WalkReply> {
        let request = WalkRequest {
            mode: mode as u32,
            ..self.request(slot)
        };
        let reply = match self.ask_there(&request)? {
            Some(reply) => Some(reply),
            None => self.ask_anywhere(&request)?,
        };
        let reply = reply.ok_or_else(|| self.locator.gone())?;
        if self.locator.kind == Kind::Epoll {
            self.set = reply.set;
        }
        if mode != Mode::Peek {
            self.read_at = Some(Instant::now());
        }
        Ok(reply)
    }

    /// Asks each place, beginning with the one that had it last. A place that could
    /// not be looked at is the answer only if no other has it.
    fn ask_there(&mut self, request: &WalkRequest) -> Result<Option<WalkReply>> {
        self.searched = false;
        let mut unseen = None;
        if let Some(place) = self.met {
            match self.ask_place(place, request)? {
                Some(reply) if reply.status() == Some(Status::Unseen) => unseen = Some(reply),
                Some(reply) => return Ok(Some(reply)),
                None => self.met = None,
            }
        }
        let nr = self.locator.places.len();
        for at in (self.at..nr).chain(0..self.at) {
            match self.ask_place(self.locator.places[at], request)? {
                Some(reply) if reply.status() == Some(Status::Unseen) => unseen = Some(reply),
                Some(reply) => {
                    self.at = at;
                    return Ok(Some(reply));
                }
                None => {}
            }
        }
        Ok(unseen)
    }

    fn ask_place(&mut self, place: Place, request: &WalkRequest) -> Result<Option<WalkReply>> {
        // The thread may have ended before its process has.
        let leader = (place.tid != place.pid).then_some(place.pid);
        for tid in [place.tid].into_iter().chain(leader) {
            let asked = WalkRequest {
                tid,
                ..of_place(place, request)
            };
            let programs = match place.via {
                // What a system call runs does not look at mappings.
                Via::Mapping => self.by_task()?,
                _ => &mut self.programs,
            };
            if let Some(reply) = programs.ask(asked, Tasks::Thread(tid))? {
                self.searched = self.programs.by == By::Call && place.via == Via::Mapping;
                return Ok(Some(reply));
            }
        }
        Ok(None)
    }

    /// Programs that an iterator runs.
    fn by_task(&mut self) -> Result<&mut Loaded<R>> {
        Ok(match (self.programs.by, &mut self.search) {
            (By::Task, _) => &mut self.programs,
            (By::Call, Some(search)) => search,
            (By::Call, none) => {
                let loaded = Loaded::by_task(self.table, self.programs.capacity);
                none.insert(loaded.map_err(|e| e.of(Backend::TaskFile))?)
            }
        })
    }

    /// Looks through all threads of its processes: it may have moved to another
    /// number, or be that of a thread that is not the one which had it. An epoll
    /// set is known by its number.
    fn ask_anywhere(&mut self, request: &WalkRequest) -> Result<Option<WalkReply>> {
        let mut known = Vec::new();
        let mut unseen = None;
        for at in 0..self.locator.places.len() {
            let place = self.locator.places[at];
            if known.contains(&place.pid) {
                continue;
            }
            known.push(place.pid);
            match pidfd::open_process(place.pid) {
                Ok(_) => {}
                Err(Error::NoSuchProcess { .. }) => continue,
                Err(error) => return Err(error),
            }
            let asked = WalkRequest {
                anywhere: (self.locator.kind == Kind::Ring).into(),
                ..of_place(place, request)
            };
            match self.by_task()?.ask(asked, Tasks::Process(place.pid))? {
                Some(reply) if reply.status() == Some(Status::Unseen) => unseen = Some(reply),
                Some(reply) => {
                    self.searched = self.programs.by == By::Call;
                    self.met = place_of(place.pid, &reply);
                    return Ok(Some(reply));
                }
                None => {}
            }
        }
        Ok(unseen)
    }
}

/// The place where a search of a process has met a ring, `None` if it does not say.
fn place_of(pid: u32, reply: &WalkReply) -> Option<Place> {
    let via = match reply.via {
        wire::VIA_DESCRIPTOR => Via::Descriptor(i32::try_from(reply.at).ok()?),
        wire::VIA_REGISTERED => Via::Registered(reply.at),
        wire::VIA_MAPPING => Via::Mapping,
        _ => return None,
    };
    let tid = reply.tid;
    (tid != 0).then_some(Place { pid, tid, via })
}

/// A request that names the place, but for the task.
fn of_place(place: Place, request: &WalkRequest) -> WalkRequest {
    let (via, at) = match place.via {
        Via::Descriptor(fd) => (wire::VIA_DESCRIPTOR, fd.unsigned_abs()),
        Via::Registered(index) => (wire::VIA_REGISTERED, index),
        Via::Mapping => (wire::VIA_MAPPING, 0),
    };
    WalkRequest {
        via,
        at,
        ..*request
    }
}

impl<R: Plain> Loaded<R> {
    /// `None` if this kernel has no such programs, or finds no task by its number here:
    /// before 6.14 only in the initial pid namespace.
    fn by_call(table: &'static Table<R>, capacity: usize) -> Result<Option<Self>, NotOpened> {
        let forms = &CALL[usize::from(!kernel::at_least(6, 14))..];
        let Some(programs) = Programs::load_call(|| maps::open(table, capacity), forms)? else {
            return Ok(None);
        };
        let mut loaded = Self::of(table, programs, capacity, By::Call)?;
        // There is no task 0.
        let reply = loaded.run(WalkRequest::default(), Tasks::All);
        let reply = reply.map_err(refuse_if_forbidden)?;
        Ok((reply.status() != Some(Status::NoLookup)).then_some(loaded))
    }

    fn by_task(table: &'static Table<R>, capacity: usize) -> Result<Self, NotOpened> {
        let programs = Programs::load(|| maps::open(table, capacity), TASK)?;
        let mut loaded = Self::of(table, programs, capacity, By::Task)?;
        let own = Tasks::Thread(
            rustix::thread::gettid()
                .as_raw_nonzero()
                .get()
                .unsigned_abs(),
        );
        let reply = loaded.run(WalkRequest::default(), own);
        reply.map_err(refuse_if_forbidden)?;
        Ok(loaded)
    }

    fn of(
        table: &'static Table<R>,
        programs: Programs,
        capacity: usize,
        by: By,
    ) -> Result<Self, NotOpened> {
        Ok(Self {
            maps: Maps::of(table, &programs.object, capacity)?,
            programs,
            capacity,
            by,
            links: (None, [None, None]),
        })
    }

    /// The reply of one look, `None` if it is not there.
    fn ask(&mut self, request: WalkRequest, tasks: Tasks) -> Result<Option<WalkReply>> {
        let reply = self.run(request, tasks)?;
        Ok((reply.status() != Some(Status::NotFound)).then_some(reply))
    }

    fn run(&mut self, request: WalkRequest, tasks: Tasks) -> Result<WalkReply> {
        self.maps.ask(request)?;
        match self.by {
            By::Call => {
                let called = self.programs.call();
                called.map_err(|e| Error::os("run a BPF program", e))?;
            }
            By::Task => self.iterate(&request, tasks)?,
        }
        self.maps.answer()
    }

    /// Walks over the tasks with each program; with the second one, where there is
    /// one, only to look at mappings.
    fn iterate(&mut self, request: &WalkRequest, tasks: Tasks) -> Result<()> {
        let (linked, links) = &mut self.links;
        if linked.replace(tasks) != Some(tasks) {
            *links = [None, None];
        }
        let mappings = request.anywhere != 0 || request.via == wire::VIA_MAPPING;
        let nr = if mappings { links.len() } else { 1 };
        for (name, link) in self.programs.names.iter().zip(links).take(nr) {
            let link = match link {
                Some(link) => link,
                none => none.insert(self.programs.link(name, tasks)?),
            };
            iterator::walk_tasks(link.as_fd())?;
        }
        Ok(())
    }

    fn grow(&mut self, table: &'static Table<R>, capacity: usize) -> Result<()> {
        let larger = match self.by {
            By::Call => Self::by_call(table, capacity).and_then(|loaded| {
                let refused = || NotOpened::Failed(Error::malformed("a program", "now refused"));
                loaded.ok_or_else(refused)
            }),
            By::Task => Self::by_task(table, capacity),
        };
        *self = larger.map_err(|e| no_room(capacity, e))?;
        Ok(())
    }
}

/// A kernel or security module that loads a program and forbids its use.
fn refuse_if_forbidden(error: Error) -> NotOpened {
    match error {
        Error::Os { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            NotOpened::Refused(Reason::NotPermitted(source))
        }
        error => NotOpened::Failed(error),
    }
}
