//! Options that several subcommands share.

use clap::{ArgGroup, Args, ValueEnum};
use uring_bpf_iter::Backend;

/// How to read, and how to print.
#[derive(Args)]
pub(crate) struct Common {
    /// How to read from the kernel
    #[arg(long, value_enum, default_value_t = BackendArg::Auto)]
    backend: BackendArg,
    /// How to print: a table for people, or one JSON object per line
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// Read once, without lock or check, for when the lock is stuck
    #[arg(long)]
    pub(crate) raw: bool,
    /// Repeat every SECONDS seconds until interrupted
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub(crate) watch: Option<u64>,
}

/// Which rings, and which of their slots.
#[derive(Args)]
#[command(group(ArgGroup::new("whose").args(["pid", "tid"]).multiple(true)))]
pub(crate) struct Rings {
    /// Only rings that this process holds
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Only rings that this thread holds
    #[arg(long)]
    pub(crate) tid: Option<u32>,
    /// Only the ring behind this descriptor of the process or thread
    #[arg(long, requires = "whose")]
    pub(crate) fd: Option<i32>,
    #[command(flatten)]
    pub(crate) common: Common,
    /// Read tables under uring_lock (Linux 6.13 and later)
    #[arg(long, conflicts_with = "raw")]
    pub(crate) locked: bool,
    /// Do not search mappings: many times faster, but a ring that is only mapped is missed
    #[arg(long)]
    pub(crate) no_mappings: bool,
    /// Include the empty slots of sparse tables
    #[arg(long)]
    pub(crate) all_slots: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

#[derive(Clone, Copy, ValueEnum)]
enum BackendArg {
    /// The best one that works
    Auto,
    /// The BPF iterators of a kernel with the patches
    Native,
    /// A BPF program on a stock kernel
    TaskFile,
    /// The text of /proc/PID/fdinfo/FD
    Fdinfo,
}

impl Common {
    pub(crate) fn backend(&self) -> Option<Backend> {
        match self.backend {
            BackendArg::Auto => None,
            BackendArg::Native => Some(Backend::Native),
            BackendArg::TaskFile => Some(Backend::TaskFile),
            BackendArg::Fdinfo => Some(Backend::Fdinfo),
        }
    }
}
