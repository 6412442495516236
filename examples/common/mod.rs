//! What the examples share: options, exit codes, and how things are shown.
// Each example uses its own part.
#![allow(dead_code)]

mod show;

pub(crate) use show::*;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use uring_bpf_iter::{Backend, Error, Ring, RingFinder, RingRecord, Snapshot, Survey, UringIter};

/// How long to wait for uring_lock with --locked.
pub(crate) const LOCK_LIMIT: Duration = Duration::from_secs(2);

/// Exit codes beside 0, and 2 for wrong usage.
const FAILED: u8 = 1;
const NOT_PERMITTED: u8 = 3;
const BUSY: u8 = 4;

/// What each example says of its end.
pub(crate) const EXIT_CODES: &str = "\
Exit codes: 0 done, also when there is no ring; 1 failed (no such process, no
such descriptor, no io_uring, the ring is gone); 2 wrong usage; 3 not permitted,
or the backend that was asked for cannot serve; 4 a ring was too busy for a
consistent look (try again, or use --raw).";

/// Options of all examples.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// Only rings that this process holds
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Only the ring that is this descriptor of the process
    #[arg(long, requires = "pid")]
    pub(crate) fd: Option<i32>,
    /// How to ask the kernel
    #[arg(long, value_enum, default_value_t = BackendArg::Auto)]
    pub(crate) backend: BackendArg,
    /// How to print: a table for people, or one JSON object a line
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// Read buffers under uring_lock (Linux 6.13 and later)
    #[arg(long, conflicts_with = "raw")]
    pub(crate) locked: bool,
    /// Look once, without lock or proof: for a ring whose lock is stuck
    #[arg(long)]
    pub(crate) raw: bool,
    /// Look again every so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) watch: Option<u64>,
    /// Do not look for rings that are only mapped: many times faster
    #[arg(long)]
    pub(crate) no_mappings: bool,
    /// Count and show the empty slots of sparse tables, too
    #[arg(long)]
    pub(crate) all_slots: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum BackendArg {
    Auto,
    Native,
    TaskFile,
    Fdinfo,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

impl From<BackendArg> for Option<Backend> {
    fn from(arg: BackendArg) -> Self {
        match arg {
            BackendArg::Auto => None,
            BackendArg::Native => Some(Backend::Native),
            BackendArg::TaskFile => Some(Backend::TaskFile),
            BackendArg::Fdinfo => Some(Backend::Fdinfo),
        }
    }
}

impl Args {
    pub(crate) fn backend(&self) -> Option<Backend> {
        self.backend.into()
    }

    /// The rings that were asked for.
    pub(crate) fn find(&self, finder: &mut RingFinder) -> Result<Survey, Error> {
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

    /// Reads a table in the way that was asked for.
    pub(crate) fn read<'a, R: RingRecord>(
        &self,
        iter: &'a mut UringIter<R>,
    ) -> Result<Snapshot<'a, R>, Error> {
        if self.locked {
            iter.snapshot_locked(LOCK_LIMIT)
        } else if self.raw {
            iter.snapshot_raw()
        } else {
            iter.snapshot()
        }
    }
}

/// Reads tables of one ring after the other.
pub(crate) struct Tables<R: RingRecord> {
    iter: Option<UringIter<R>>,
}

impl<R: RingRecord> Default for Tables<R> {
    fn default() -> Self {
        Self { iter: None }
    }
}

impl<R: RingRecord> Tables<R> {
    /// The iterator, attached to this ring.
    pub(crate) fn of(&mut self, args: &Args, ring: &Ring) -> Result<&mut UringIter<R>, Error> {
        // What is loaded serves for the next ring, too, but not always: a
        // native iterator takes a descriptor.
        let iter = match self.iter.take() {
            Some(mut iter) => match iter.reattach(ring) {
                Ok(()) => iter,
                Err(Error::NoBackend { .. }) => Self::attach(args, ring)?,
                Err(error) => {
                    self.iter = Some(iter);
                    return Err(error);
                }
            },
            None => Self::attach(args, ring)?,
        };
        Ok(self.iter.insert(iter))
    }

    fn attach(args: &Args, ring: &Ring) -> Result<UringIter<R>, Error> {
        UringIter::<R>::options()
            .backend(args.backend())
            .attach_ring(ring)
    }

    pub(crate) fn read(&mut self, args: &Args, ring: &Ring) -> Result<Snapshot<'_, R>, Error> {
        args.read(self.of(args, ring)?)
    }
}

/// What ends a run early.
pub(crate) enum Stop {
    Failed(Error),
    Io(io::Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// One program: what it says of itself, and how its run went.
pub(crate) struct Program {
    name: &'static str,
    worst: u8,
}

impl Program {
    /// Runs `once` with what finds rings, or again and again, and gives the exit
    /// code.
    pub(crate) fn main(
        name: &'static str,
        args: &Args,
        mut once: impl FnMut(&mut Program, &mut RingFinder, &mut dyn Write) -> Result<(), Stop>,
    ) -> ExitCode {
        let mut program = Self::new(name);
        // A native iterator shows one ring: others have to find it.
        let find = match args.backend() {
            Some(Backend::Native) => None,
            other => other,
        };
        let mut finder = match RingFinder::with_backend(find) {
            Ok(finder) => finder.mappings(!args.no_mappings),
            Err(error) => return ExitCode::from(program.note_error(&error)),
        };
        for refusal in &finder.selection().refused {
            // A kernel without the patches is the normal case.
            if refusal.backend != Backend::Native {
                program.note(format_args!(
                    "using {}, which knows less: {refusal}",
                    finder.selection().backend
                ));
            }
        }
        program.repeat(args.watch, |program, out| once(program, &mut finder, out))
    }

    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, worst: 0 }
    }

    /// Runs `once`, or again and again, and gives the exit code.
    pub(crate) fn repeat(
        mut self,
        watch: Option<u64>,
        mut once: impl FnMut(&mut Program, &mut dyn Write) -> Result<(), Stop>,
    ) -> ExitCode {
        let program = &mut self;
        loop {
            let mut out = io::BufWriter::new(io::stdout().lock());
            let done = once(program, &mut out).and_then(|()| out.flush().map_err(Stop::Io));
            match done {
                Ok(()) => {}
                // Who reads us has seen enough.
                Err(Stop::Io(e)) if e.kind() == io::ErrorKind::BrokenPipe => break,
                Err(Stop::Io(e)) => {
                    program.note(format_args!("cannot write: {e}"));
                    program.worst = FAILED;
                    break;
                }
                Err(Stop::Failed(error)) => {
                    // What was found before it is printed all the same.
                    let _ = out.flush();
                    program.note_error(&error);
                    break;
                }
            }
            let Some(seconds) = watch else { break };
            drop(out);
            if reader_goes_within(Duration::from_secs(seconds)) {
                break;
            }
        }
        ExitCode::from(program.worst)
    }

    /// Says something to the person.
    pub(crate) fn note(&self, text: impl Display) {
        // Nowhere is left to say that stderr cannot be written.
        let _ = writeln!(io::stderr(), "{}: {text}", self.name);
    }

    /// Says what went wrong and remembers it for the exit code.
    pub(crate) fn note_error(&mut self, error: &Error) -> u8 {
        self.note(error);
        let code = match error {
            Error::NoBackend { .. } | Error::NotPermitted { .. } | Error::Unsupported { .. } => {
                NOT_PERMITTED
            }
            error if error.is_retryable() => BUSY,
            _ => FAILED,
        };
        self.worst = self.worst.max(code);
        code
    }

    /// What there is; if there is nothing, it says why.
    pub(crate) fn noted<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| self.note_error(&error)).ok()
    }

    /// Says what a search could not see, and when it found nothing.
    pub(crate) fn note_survey(&self, args: &Args, survey: &Survey) {
        match &survey.unseen[..] {
            [] => {}
            [one] => self.note(format_args!("process {}: {}", one.pid, one.why)),
            [first, ..] => self.note(format_args!(
                "{} processes could not be looked at in full, as {}: {}",
                survey.unseen.len(),
                first.pid,
                first.why
            )),
        }
        if survey.rings.is_empty() {
            match args.pid {
                Some(pid) => self.note(format_args!("process {pid} holds no io_uring")),
                None => self.note("no io_uring found"),
            }
        }
    }
}

/// Waits, but not for somebody who has closed the other end of our stdout.
fn reader_goes_within(pause: Duration) -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let end = Instant::now() + pause;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(Errno::INTR) => {}
            Err(_) => {
                std::thread::sleep(left);
                return false;
            }
        }
    }
}
