//! Makes rings as told, prints one line of JSON about them, and stays until
//! its standard input closes (or for some seconds).
#![deny(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use uring_testkit::{demo, fork_chain, fork_holder, set_uid};
use uring_testkit::{BufSpec, LockHolder, Report, RingBuilder, RingReport, TestRing};

/// Makes io_uring rings with known contents and says exactly what it made
#[derive(Debug, Parser)]
struct Args {
    /// Rings to make, all alike
    #[arg(long, default_value_t = 1)]
    rings: usize,
    /// A ready-made set of rings, instead of --rings and what describes them
    #[arg(long)]
    preset: Option<Preset>,
    /// How the rings are set up
    #[arg(long, default_value = "plain")]
    setup: Setup,
    /// Registered buffers of each ring
    #[arg(long, default_value_t = 1)]
    bufs: usize,
    /// Length of a buffer in bytes
    #[arg(long, default_value_t = 4096)]
    len: usize,
    /// Where a buffer starts inside its first page
    #[arg(long, default_value_t = 0)]
    offset: usize,
    /// Buffers lie in huge pages
    #[arg(long)]
    huge: bool,
    /// Tag of the first buffer; the others count on from it
    #[arg(long)]
    tag: Option<u64>,
    /// A sparse table of so many slots, with the buffers spread over it
    #[arg(long)]
    sparse: Option<u32>,
    /// Registered files of each ring
    #[arg(long, default_value_t = 0)]
    files: usize,
    /// Unmap the buffers' memory once they are registered
    #[arg(long)]
    drop_mapping: bool,
    /// Rings without descriptor (REGISTERED_FD_ONLY; before 6.5 one that was registered and closed)
    #[arg(long, conflicts_with_all = ["preset", "dup", "mapping_only"])]
    no_fd: bool,
    /// Close the descriptors: only the mapping of each ring is left
    #[arg(long, conflicts_with = "dup")]
    mapping_only: bool,
    /// Duplicate the descriptor of each ring
    #[arg(long)]
    dup: bool,
    /// Fork a child, which holds the rings too
    #[arg(long)]
    fork: bool,
    /// Leave the rings to a chain of processes, each of which keeps the first one busy, forks
    /// the next and ends
    #[arg(long, conflicts_with_all = ["no_fd", "mapping_only"])]
    hand_on: bool,
    /// Drop to this user id
    #[arg(long)]
    uid: Option<u32>,
    /// Drop before or after the rings are made
    #[arg(long, default_value = "before", requires = "uid")]
    uid_when: When,
    /// Keep uring_lock of every ring taken
    #[arg(long, conflicts_with_all = ["no_fd", "mapping_only"])]
    hold_lock: bool,
    /// Stay so long and ignore standard input
    #[arg(long)]
    seconds: Option<u64>,
}

/// Of each process of a chain: less than a search takes for what is busy.
const LIFE: Duration = Duration::from_millis(3);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Preset {
    /// One ring of each kind, some files, and a forked holder
    Demo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum When {
    Before,
    After,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Setup {
    Plain,
    Iopoll,
    Sqpoll,
    DeferTaskrun,
    CoopTaskrun,
    Disabled,
    Sqe128,
    Cqe32,
}

impl Setup {
    fn builder(self) -> RingBuilder {
        let ring = RingBuilder::new(8);
        match self {
            Self::Plain => ring,
            Self::Iopoll => ring.iopoll(),
            Self::Sqpoll => ring.sqpoll(Duration::from_millis(10)),
            Self::DeferTaskrun => ring.defer_taskrun(),
            Self::CoopTaskrun => ring.coop_taskrun(),
            Self::Disabled => ring.disabled(),
            Self::Sqe128 => ring.sqe128(),
            Self::Cqe32 => ring.cqe32(),
        }
    }
}

impl Args {
    fn empty_ring(&self) -> io::Result<TestRing> {
        if self.no_fd {
            match self.setup.builder().no_fd().build() {
                // Before 6.5. It will lose its descriptor.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
                built => return built,
            }
        }
        self.setup.builder().build()
    }

    fn ring(&self) -> io::Result<TestRing> {
        let mut ring = self.empty_ring()?;
        let spec = |i: usize| BufSpec {
            len: self.len,
            offset_in_page: self.offset,
            huge: self.huge,
            tag: self.tag.map_or(0, |tag| tag.wrapping_add(i as u64)),
        };
        let specs: Vec<BufSpec> = (0..self.bufs).map(spec).collect();
        if let Some(slots) = self.sparse {
            ring.register_sparse(slots)?;
            let spread = slots as usize / self.bufs.max(1);
            if spread == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "--bufs above --sparse",
                ));
            }
            for (i, spec) in specs.iter().enumerate() {
                ring.update((i * spread) as u32, &[Some(*spec)])?;
            }
        } else if self.tag.is_some() {
            ring.register_tagged(&specs)?;
        } else if !specs.is_empty() {
            ring.register(&specs)?;
        }
        if self.files > 0 {
            let null = File::open("/dev/null")?;
            let files: Vec<BorrowedFd<'_>> = (0..self.files).map(|_| null.as_fd()).collect();
            ring.register_files(&files)?;
        }
        if self.no_fd && ring.fd().is_some() {
            ring.close_fd_keep_registered()?;
        }
        Ok(ring)
    }

    fn make(&self) -> io::Result<demo::Demo> {
        if self.preset == Some(Preset::Demo) {
            return demo::rings();
        }
        let kind = self
            .setup
            .to_possible_value()
            .expect("no variant is hidden");
        let ring = |_| Ok((kind.get_name().to_owned(), self.ring()?));
        let rings = (0..self.rings).map(ring).collect::<io::Result<_>>()?;
        Ok(demo::Demo {
            rings,
            skipped: Vec::new(),
        })
    }

    fn drop_to_uid(&self, when: When) -> io::Result<()> {
        match self.uid {
            Some(uid) if self.uid_when == when => set_uid(uid),
            _ => Ok(()),
        }
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("workload: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<()> {
    args.drop_to_uid(When::Before)?;
    let demo::Demo { mut rings, skipped } = args.make()?;
    args.drop_to_uid(When::After)?;

    let mut dups: Vec<OwnedFd> = Vec::new();
    let mut reports = Vec::new();
    for (kind, ring) in &mut rings {
        if args.drop_mapping {
            ring.drop_mapping();
        }
        if args.mapping_only {
            ring.close_fd_keep_mapping();
        }
        let mut report = RingReport::new(kind, ring);
        if args.dup {
            let dup = ring.as_fd().try_clone_to_owned()?;
            report.dup_fds.push(dup.as_raw_fd());
            dups.push(dup);
        }
        reports.push(report);
    }
    // Forked before anything is printed: no output waits in a buffer twice.
    let fork = args.fork || args.preset == Some(Preset::Demo);
    let children = if fork {
        vec![fork_holder()?]
    } else {
        Vec::new()
    };

    if let (true, Some((_, ring))) = (args.hand_on, rings.first()) {
        fork_chain(ring.as_fd(), LIFE)?;
    }

    // After the fork: a child with the userfaultfds would keep them open.
    let lock = |(_, ring): &(String, TestRing)| LockHolder::hold(ring);
    let held = if args.hold_lock { &rings[..] } else { &[] };
    let _held = held.iter().map(lock).collect::<io::Result<Vec<_>>>()?;

    let report = Report {
        pid: std::process::id(),
        children,
        rings: reports,
        skipped,
    };
    if args.hand_on {
        rings.clear();
    }
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, &report)?;
    writeln!(stdout)?;
    stdout.flush()?;
    match args.seconds {
        Some(seconds) => thread::sleep(Duration::from_secs(seconds)),
        None => while io::stdin().read(&mut [0; 256])? > 0 {},
    }
    Ok(())
}
