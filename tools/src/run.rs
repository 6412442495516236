//! One run of a subcommand: once or again and again, with notes on stderr.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use uring_bpf_iter::{Backend, Error, Selection, Unseen};

use crate::exit::{self, Stop};

/// The bytes that are written at once: as many as a pipe holds.
const ROOM: usize = 1 << 16;

/// The notes on stderr, and the worst exit code so far.
pub(crate) struct Run {
    command: &'static str,
    worst: u8,
}

impl Run {
    pub(crate) fn new(command: &'static str) -> Self {
        Self { command, worst: 0 }
    }

    /// Runs `once`, with `watch` again and again, and gives the exit code.
    pub(crate) fn repeat(
        mut self,
        watch: Option<u64>,
        mut once: impl FnMut(&mut Self, &mut dyn Write) -> Result<(), Stop>,
    ) -> ExitCode {
        loop {
            let mut out = io::BufWriter::with_capacity(ROOM, io::stdout().lock());
            let done = once(&mut self, &mut out).and_then(|()| out.flush().map_err(Stop::Io));
            match done {
                Ok(()) => {}
                // The reader has seen enough.
                Err(Stop::Io(e)) if e.kind() == io::ErrorKind::BrokenPipe => break,
                Err(Stop::Io(e)) => {
                    self.note(format_args!("cannot write: {e}"));
                    self.worst = exit::FAILED;
                    break;
                }
                Err(Stop::Failed(error)) => {
                    // Everything found before it is printed all the same.
                    let _ = out.flush();
                    self.note_error(&error);
                    break;
                }
            }
            let Some(seconds) = watch else { break };
            drop(out);
            if reader_goes_within(Duration::from_secs(seconds)) {
                break;
            }
        }
        self.end()
    }

    /// The exit code of a run that went so.
    pub(crate) fn end(self) -> ExitCode {
        ExitCode::from(self.worst)
    }

    /// Writes a line to stderr.
    pub(crate) fn note(&self, text: impl Display) {
        // A failure to write to stderr cannot be reported anywhere.
        let _ = writeln!(io::stderr(), "uringctl {}: {text}", self.command);
    }

    /// Says why a backend that shows more is not in use.
    pub(crate) fn note_selection(&self, selection: &Selection) {
        for refusal in &selection.refused {
            // A kernel without the patches is the normal case.
            if refusal.backend != Backend::Native {
                let backend = selection.backend;
                self.note(format_args!("using {backend}, which shows less: {refusal}"));
            }
        }
    }

    /// Says what could not be looked at, and remembers it for the exit code.
    pub(crate) fn note_unseen(&mut self, unseen: &[Unseen]) {
        match unseen {
            [] => {}
            [one] => self.note(format_args!("process {}: {}", one.pid, one.why)),
            [first, ..] => self.note(format_args!(
                "{} processes could not be inspected in full, for example {}: {}",
                unseen.len(),
                first.pid,
                first.why
            )),
        }
        let codes = unseen.iter().map(|one| exit::code_of_unseen(one.why));
        self.worst = codes.fold(self.worst, u8::max);
    }

    /// True if all went well until now.
    pub(crate) fn is_complete(&self) -> bool {
        self.worst == 0
    }

    /// Says what went wrong, and remembers it for the exit code.
    pub(crate) fn note_error(&mut self, error: &Error) {
        self.note(error);
        self.worst = self.worst.max(exit::code_of(error));
    }

    /// The value; an error is noted.
    pub(crate) fn noted<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| self.note_error(&error)).ok()
    }
}

/// Waits, but no longer than somebody reads our stdout.
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
