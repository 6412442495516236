//! Steps that run beside the others: one after another in a lane of their own,
//! each with a log, which is shown in one piece when its turn has come.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, Context as _, Result};
use xtask_base::run::Cmd;
use xtask_base::workspace;

use super::{Outcome, Work};

type Task = Box<dyn FnOnce() + Send>;

/// Where such steps wait for each other.
pub(super) struct Lane {
    tasks: mpsc::Sender<Task>,
}

impl Lane {
    pub(super) fn open() -> Self {
        let (sender, tasks) = mpsc::channel::<Task>();
        thread::spawn(move || tasks.into_iter().for_each(|task| task()));
        Self { tasks: sender }
    }

    /// Starts a step as soon as those before it have ended.
    pub(super) fn start(&self, name: &str, work: Work) -> Result<Job> {
        let dir = workspace::target_dir()?.join("steps");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let path = dir.join(format!("{name}.log"));
        let cannot = || format!("cannot write {}", path.display());
        let log = Log(File::create(&path).with_context(cannot)?);
        let (sender, ended) = mpsc::channel();
        let task = move || {
            let start = Instant::now();
            let result = work(&log);
            // Nobody waits for it if the test command itself has failed.
            let _ = sender.send((result, start.elapsed()));
        };
        let sent = self.tasks.send(Box::new(task));
        sent.map_err(|_| anyhow!("an earlier step has panicked"))?;
        Ok(Job { path, ended })
    }
}

/// What a step says while others are being shown.
pub(super) struct Log(File);

impl Log {
    pub(super) fn say(&self, line: &str) -> Result<()> {
        writeln!(&self.0, "{line}").context("cannot write the log")
    }

    /// Runs a command that must succeed.
    pub(super) fn run(&self, cmd: Cmd) -> Result<()> {
        cmd.run_into(&self.0, 0)
    }

    /// Runs a command that must end with this status.
    pub(super) fn expect(&self, status: i32, cmd: Cmd) -> Result<()> {
        cmd.run_into(&self.0, status)
    }
}

/// A step that has been started.
pub(super) struct Job {
    path: PathBuf,
    ended: mpsc::Receiver<(Result<Outcome>, Duration)>,
}

impl Job {
    /// Shows its log, to the end; gives how it went and how long it took.
    pub(super) fn show(self) -> (Result<Outcome>, Duration) {
        let mut log = match File::open(&self.path) {
            Ok(log) => log,
            Err(error) => return (Err(error.into()), Duration::ZERO),
        };
        loop {
            let ended = self.ended.recv_timeout(Duration::from_millis(200));
            // What cannot be shown is in the file.
            let _ = io::copy(&mut log, &mut io::stdout());
            match ended {
                Ok(ended) => return ended,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return (Err(anyhow!("the step panicked")), Duration::ZERO)
                }
            }
        }
    }
}
