//! Finds the rings that were asked for, and reads their tables.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use uring_bpf_iter::{
    Backend, Error, Holder, Permission, Ring, RingFinder, RingRecord, Snapshot, Survey, UringReader,
};

use crate::args::Rings;
use crate::exit::Stop;
use crate::json::Line;
use crate::process::Containers;
use crate::run::Run;

/// How long to wait for uring_lock with --locked.
pub(crate) const LOCK_LIMIT: Duration = Duration::from_secs(2);

/// Runs a subcommand that shows rings: `once` is called with those found.
pub(crate) fn main(
    command: &'static str,
    args: &Rings,
    mut once: impl FnMut(&mut Run, Vec<Ring>, &mut dyn Write) -> Result<(), Stop>,
) -> ExitCode {
    let mut run = Run::new(command);
    // A native iterator shows one ring: another backend has to find it.
    let find = match args.common.backend() {
        Some(Backend::Native) => None,
        other => other,
    };
    let Some(finder) = run.noted(RingFinder::with_backend(find)) else {
        return run.end();
    };
    let mut finder = finder.mappings(!args.no_mappings);
    run.note_selection(finder.selection());
    run.repeat(args.common.watch, |run, out| {
        let survey = args.find(&mut finder)?;
        note_survey(run, args, &survey);
        once(run, survey.rings, out)
    })
}

/// Says which processes the search could not see, and that it found nothing.
fn note_survey(run: &mut Run, args: &Rings, survey: &Survey) {
    run.note_unseen(&survey.unseen);
    if survey.rings.is_empty() {
        let whose = match (args.pid, args.tid) {
            (Some(pid), None) => format!("process {pid} has"),
            (_, Some(tid)) => format!("thread {tid} has"),
            (None, None) => "there is".into(),
        };
        match survey.unseen.is_empty() {
            true => run.note(format_args!("{whose} no io_uring instance")),
            false => run.note(format_args!(
                "{whose} no io_uring instance in what could be inspected"
            )),
        }
    }
}

impl Rings {
    fn find(&self, finder: &mut RingFinder) -> Result<Survey, Error> {
        check_thread(self.pid, self.tid)?;
        let mut survey = match (self.pid, self.tid) {
            (Some(pid), None) => finder.find_in(pid),
            (_, Some(tid)) => finder.find_thread(tid),
            (None, None) => finder.find_all(),
        }?;
        if let Some(fd) = self.fd {
            survey.rings.retain(|ring| self.is_at(ring, fd));
            match (survey.rings.is_empty(), self.pid, self.tid) {
                (true, _, Some(tid)) => return Err(not_a_ring(tid, fd)),
                // Says what is there instead.
                (true, Some(pid), None) => survey.rings.push(finder.find_fd(pid, fd)?),
                _ => {}
            }
        }
        Ok(survey)
    }

    /// Whether a ring that was found is behind this descriptor of the process or thread that
    /// was asked for.
    fn is_at(&self, ring: &Ring, fd: i32) -> bool {
        ring.holders()
            .iter()
            .any(|holder| holder.fd() == Some(fd) && self.is_asked(holder))
    }

    /// Whether a holder is the process or the thread that was asked for.
    fn is_asked(&self, holder: &Holder) -> bool {
        match (self.pid, self.tid) {
            (Some(pid), None) => holder.pid == pid,
            (_, Some(tid)) => holder.tid == tid,
            (None, None) => true,
        }
    }

    /// Reads tables by the backend that was asked for.
    pub(crate) fn reader<R: RingRecord>(&self) -> UringReader<R> {
        let options = UringReader::options();
        options.backend(self.common.backend()).reader()
    }

    /// Reads a table in the way that was asked for.
    pub(crate) fn read<'a, R: RingRecord>(
        &self,
        reader: &'a mut UringReader<R>,
        ring: &Ring,
    ) -> Result<Snapshot<'a, R>, Error> {
        if self.locked {
            reader.snapshot_locked(ring, LOCK_LIMIT)
        } else if self.common.raw {
            reader.snapshot_raw(ring)
        } else {
            reader.snapshot(ring)
        }
    }

    /// The holder that a ring is shown by: the one that was asked for, else
    /// the first.
    pub(crate) fn holder<'a>(&self, ring: &'a Ring) -> &'a Holder {
        let asked = |holder: &&Holder| {
            self.is_asked(holder) && (self.fd.is_none() || holder.fd() == self.fd)
        };
        let mut holders = ring.holders().iter();
        holders.find(asked).unwrap_or(ring.owner())
    }

    /// The keys by which a record says which ring it belongs to.
    pub(crate) fn key(&self, ring: &Ring) -> RingKey {
        let holder = self.holder(ring);
        RingKey {
            pid: holder.pid,
            tid: holder.tid,
            fd: holder.fd(),
            ring: ring.inode,
        }
    }
}

/// The line of a ring, with what was read of it: keys of that stand for those of the
/// search. Each holder has its container with it.
pub(crate) fn line(containers: &mut Containers, ring: &Ring, read: Value) -> Result<Line, Stop> {
    let mut ring = serde_json::to_value(ring).map_err(io::Error::from)?;
    if let Some(Value::Array(holders)) = ring.get_mut("holders") {
        for holder in holders {
            add_container(containers, holder)?;
        }
    }
    if let (Value::Object(keys), Value::Object(read)) = (&mut ring, &read) {
        for replaced in read.keys() {
            keys.shift_remove(replaced);
        }
    }
    Ok(Line::new("ring").with(read)?.with(ring)?)
}

fn add_container(containers: &mut Containers, holder: &mut Value) -> Result<(), Stop> {
    let pid = holder.get("pid").and_then(Value::as_u64);
    if let (Some(pid), Value::Object(keys)) = (pid.and_then(|pid| pid.try_into().ok()), holder) {
        let container = serde_json::to_value(containers.of(pid)).map_err(io::Error::from)?;
        if let Value::Object(container) = container {
            keys.extend(container);
        }
    }
    Ok(())
}

/// Which ring a record belongs to.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct RingKey {
    pid: u32,
    tid: u32,
    fd: Option<i32>,
    ring: u64,
}

/// The error for a descriptor of a thread.
fn not_a_ring(tid: u32, fd: i32) -> Error {
    let path = format!("/proc/{tid}/fd/{fd}");
    match fs::read_link(&path) {
        Ok(what) if what.as_os_str() == "anon_inode:[io_uring]" => Error::RingGone {
            ring: fs::metadata(&path).map_or(0, |ring| ring.ino()),
            holder: format!("thread {tid} (descriptor {fd}) was seen without it and"),
        },
        Ok(what) => Error::NotARing {
            pid: tid,
            fd,
            what: what.display().to_string(),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Error::NoSuchDescriptor { pid: tid, fd },
        Err(source) => Error::NotPermitted {
            operation: format!("look at {path}"),
            needs: Permission::ReadProc,
            source,
        },
    }
}

/// A thread that is asked for with its process has to be one of that.
pub(crate) fn check_thread(pid: Option<u32>, tid: Option<u32>) -> Result<(), Error> {
    match (pid, tid) {
        (Some(pid), Some(tid)) if !has_thread(pid, tid) => Err(Error::NoSuchProcess { pid: tid }),
        _ => Ok(()),
    }
}

/// Whether a thread is one of this process.
pub(crate) fn has_thread(pid: u32, tid: u32) -> bool {
    Path::new(&format!("/proc/{pid}/task/{tid}")).exists()
}
