//! Processes with rings, which share nothing with this one and end with it.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use rustix::pipe::{pipe_with, PipeFlags};
use uring_testkit::{fork_holder, TestRing};

use crate::bench::Result;
use crate::snapshot::ring_of;

/// The argument that makes this program such a process.
pub(crate) const ROLE: &str = "hold-rings";

/// What such a process has.
#[derive(Clone, Copy)]
pub(crate) struct Hold {
    pub(crate) rings: usize,
    /// Registered buffers of each ring.
    pub(crate) buffers: usize,
    /// How many hold its rings: it, and those that it forks.
    pub(crate) processes: usize,
}

/// Processes that all have the same to hold.
pub(crate) struct Holders {
    what: Hold,
    children: Vec<Child>,
    /// Who holds the other end of their standard input, keeps them.
    keep: Option<OwnedFd>,
    input: OwnedFd,
}

impl Holders {
    pub(crate) fn new(what: Hold) -> Result<Self> {
        let (input, keep) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok(Self {
            what,
            children: Vec::new(),
            keep: Some(keep),
            input,
        })
    }

    /// Starts more, until there are so many. Each has its rings when it has said so.
    pub(crate) fn grow(&mut self, wanted: usize) -> Result<()> {
        let Hold {
            rings,
            buffers,
            processes,
        } = self.what;
        while self.children.len() < wanted {
            let mut child = Command::new("/proc/self/exe")
                .arg(ROLE)
                .args([rings, buffers, processes].map(|number| number.to_string()))
                .stdin(self.input.try_clone()?)
                .stdout(Stdio::piped())
                .spawn()?;
            let said = child.stdout.take();
            self.children.push(child);
            said.ok_or("no output")?.read_exact(&mut [0])?;
        }
        Ok(())
    }

    pub(crate) fn pids(&self) -> impl Iterator<Item = u32> + '_ {
        self.children.iter().map(Child::id)
    }

    /// Whether all of them are among the processes that were found.
    pub(crate) fn all_found(&self, found: impl Iterator<Item = u32>) -> Result<()> {
        let found: HashSet<u32> = found.collect();
        match self.pids().filter(|pid| !found.contains(pid)).count() {
            0 => Ok(()),
            missed => Err(format!("{missed} of {} not found", self.children.len()).into()),
        }
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        self.keep = None;
        for child in &mut self.children {
            let _already_gone = child.wait();
        }
    }
}

/// What such a process does.
pub(crate) fn hold(args: &[String]) -> Result<()> {
    let numbers: Vec<usize> = args
        .iter()
        .map(|arg| arg.parse())
        .collect::<Result<_, _>>()?;
    let &[rings, buffers, processes] = &numbers[..] else {
        return Err("wrong arguments".into());
    };
    let _rings: Vec<TestRing> = (0..rings)
        .map(|_| ring_of(buffers))
        .collect::<Result<_>>()?;
    for _ in 1..processes {
        fork_holder()?;
    }
    io::stdout().write_all(b".")?;
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
