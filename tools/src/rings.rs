//! Finds the rings that were asked for, and reads their tables.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use uring_bpf_iter::{
    Backend, Error, Holder, Ring, RingFinder, RingRecord, Snapshot, Survey, UringReader,
};

use crate::args::Rings;
use crate::exit::Stop;
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
fn note_survey(run: &Run, args: &Rings, survey: &Survey) {
    run.note_unseen(&survey.unseen);
    if survey.rings.is_empty() {
        match args.pid {
            Some(pid) => run.note(format_args!("process {pid} has no io_uring instance")),
            None => run.note("no io_uring instance found"),
        }
    }
}

impl Rings {
    fn find(&self, finder: &mut RingFinder) -> Result<Survey, Error> {
        match (self.pid, self.fd) {
            (Some(pid), Some(fd)) => {
                let mut survey = Survey::default();
                survey.rings.push(finder.find_fd(pid, fd)?);
                Ok(survey)
            }
            (Some(pid), None) => finder.find_in(pid),
            (None, _) => finder.find_all(),
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
        self.pid
            .and_then(|pid| ring.holder(pid, self.fd))
            .unwrap_or(ring.owner())
    }

    /// The keys by which a record says which ring it belongs to.
    pub(crate) fn key(&self, ring: &Ring) -> RingKey {
        let holder = self.holder(ring);
        RingKey {
            pid: holder.pid,
            fd: holder.fd(),
            ring: ring.inode,
        }
    }
}

/// Which ring a record belongs to.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct RingKey {
    pid: u32,
    fd: Option<i32>,
    ring: u64,
}
