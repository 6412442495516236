//! The `workload` binary from the outside: its report, and a handle that finds
//! it, starts it and always ends it.

use std::env;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use serde::{Deserialize, Serialize};

use crate::buf::Registered;
use crate::ring::TestRing;

/// The one line of JSON that the workload prints when its rings stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The process that made the rings.
    pub pid: u32,
    /// Forked children, which hold the same rings under the same numbers.
    pub children: Vec<u32>,
    /// The rings, in order of making.
    pub rings: Vec<RingReport>,
    /// What this machine could not do, in words.
    pub skipped: Vec<String>,
}

/// One ring, exactly as registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingReport {
    /// What is special about it.
    pub kind: String,
    /// Its descriptor; null if it has none (any more).
    pub fd: Option<i32>,
    /// More descriptors of the same ring.
    pub dup_fds: Vec<i32>,
    /// Its index in the main thread's registered rings, instead of a descriptor.
    pub registered_index: Option<u32>,
    /// Where struct io_rings is mapped.
    pub mapping: u64,
    /// The inode number of its file; null if it never had a descriptor.
    pub inode: Option<u64>,
    /// Setup flags as the kernel reported them.
    pub flags: u32,
    /// Submission entries.
    pub sq_entries: u32,
    /// Completion entries.
    pub cq_entries: u32,
    /// Slots of the table of registered buffers; null for an empty one.
    pub bufs: Vec<Option<IndexedBuf>>,
    /// Slots of the table of registered files.
    pub nr_files: usize,
}

/// A registered buffer and its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedBuf {
    /// The slot.
    pub index: u32,
    /// The buffer.
    #[serde(flatten)]
    pub buf: Registered,
}

impl RingReport {
    /// Describes a ring of this process.
    pub fn new(kind: &str, ring: &TestRing) -> Self {
        let indexed = |(index, slot): (usize, &Option<Registered>)| {
            slot.map(|buf| IndexedBuf {
                index: index as u32,
                buf,
            })
        };
        Self {
            kind: kind.to_owned(),
            fd: ring.fd().map(|fd| fd.as_raw_fd()),
            dup_fds: Vec::new(),
            registered_index: ring.registered_index(),
            mapping: ring.mapping_addr(),
            inode: ring.inode(),
            flags: ring.flags(),
            sq_entries: ring.sq_entries(),
            cq_entries: ring.cq_entries(),
            bufs: ring.expected().iter().enumerate().map(indexed).collect(),
            nr_files: ring.nr_files(),
        }
    }

    /// The table as an oracle: like [`TestRing::expected`].
    pub fn expected(&self) -> Vec<Option<Registered>> {
        self.bufs
            .iter()
            .map(|slot| slot.map(|indexed| indexed.buf))
            .collect()
    }
}

/// A running workload; killed and reaped on drop.
#[derive(Debug)]
pub struct Workload {
    report: Report,
    child: Child,
}

impl Workload {
    /// Starts the binary with `args` and waits for its report.
    ///
    /// The binary is `$URING_WORKLOAD`, or lies next to this executable or in
    /// the directory above (cargo puts tests into `deps/`).
    ///
    /// # Errors
    /// `NotFound` with the command that builds it; what a failing workload said
    /// goes to this process's standard error.
    pub fn spawn<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> io::Result<Self> {
        let mut child = Command::new(Self::binary()?)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        match read_report(&mut child) {
            Ok(report) => Ok(Self { report, child }),
            Err(e) => {
                end(&mut child);
                Err(e)
            }
        }
    }

    /// Where the binary is.
    ///
    /// # Errors
    /// `NotFound` with the command that builds it.
    pub fn binary() -> io::Result<PathBuf> {
        if let Some(path) = env::var_os("URING_WORKLOAD") {
            return Ok(path.into());
        }
        let me = env::current_exe()?;
        let near = me
            .ancestors()
            .skip(1)
            .take(2)
            .map(|dir| dir.join("workload"));
        near.into_iter().find(|path| path.is_file()).ok_or_else(|| {
            let text = format!(
                "no `workload` near {}: run `cargo build -p uring-testkit --bin workload` \
                 (with the same profile), or set URING_WORKLOAD to its path",
                me.display()
            );
            io::Error::new(io::ErrorKind::NotFound, text)
        })
    }

    /// What it registered.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it end by itself: closes its standard input and waits.
    ///
    /// # Errors
    /// Those of wait4(2).
    pub fn finish(mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn read_report(child: &mut Child) -> io::Result<Report> {
    let stdout = child.stdout.take().expect("piped");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    if line.is_empty() {
        let status = child.wait()?;
        let text = format!("the workload ended without a report: {status}");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
    }
    Ok(serde_json::from_str(&line)?)
}

fn end(child: &mut Child) {
    let _already_ended = child.kill();
    let _already_reaped = child.wait();
}
