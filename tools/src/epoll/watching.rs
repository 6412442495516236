//! The file whose watchers are asked for.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::str::FromStr;

use uring_bpf_iter::{Backend, Descriptors, EpollItem, Error, Limitation, Operation};

use crate::run::Run;
use crate::text::device;

/// A descriptor of a process, as PID:FD.
#[derive(Debug, Clone, Copy)]
pub(super) struct Descriptor {
    pub(super) pid: u32,
    pub(super) fd: i32,
}

impl FromStr for Descriptor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once(':').and_then(|(pid, fd)| {
            let fd = fd.parse().ok().filter(|fd| *fd >= 0)?;
            let pid = pid.parse().ok()?;
            Some(Self { pid, fd })
        });
        parsed.ok_or("a process and a descriptor are needed, as 1234:5")
    }
}

/// The items that are asked for.
pub(super) enum Watching {
    All,
    /// Those of the very file that is this descriptor, by the descriptors of its process.
    File(Descriptor, Descriptors),
    Inode(u64),
}

impl Watching {
    pub(super) fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }

    pub(super) fn is(&self, item: &EpollItem) -> bool {
        match self {
            Self::All => true,
            Self::File(descriptor, all) => all.of(item.file()).contains(&descriptor.fd),
            Self::Inode(inode) => item.file().inode() == *inode,
        }
    }

    /// Says that nothing watches the file, or that there is more than one such file.
    pub(super) fn note(&self, run: &Run, met: &Met, pid: Option<u32>) {
        let file = match self {
            Self::All => return,
            Self::File(Descriptor { pid, fd }, _) => {
                format!("the file that is descriptor {fd} of process {pid}")
            }
            Self::Inode(inode) => format!("a file with inode number {inode}"),
        };
        if met.devices.is_empty() {
            let of = pid.map_or_else(String::new, |pid| format!(" of process {pid}"));
            let could = match run.is_complete() {
                true => "",
                false => " that could be read",
            };
            run.note(format_args!("no epoll set{of}{could} watches {file}"));
        }
        if !matches!(self, Self::File(..)) && met.devices.len() > 1 {
            let devices: Vec<&str> = met.devices.iter().map(String::as_str).collect();
            run.note(format_args!(
                "{file} is on each of these devices: {}",
                devices.join(", ")
            ));
        }
    }
}

/// The devices of the items that were met.
#[derive(Default)]
pub(super) struct Met {
    devices: BTreeSet<String>,
}

impl Met {
    pub(super) fn add(&mut self, items: &[EpollItem]) {
        self.devices
            .extend(items.iter().map(|item| device(item.file())));
    }
}

/// Only BPF tells one open file from another.
pub(super) fn needs_bpf() -> Error {
    Error::Unsupported {
        backend: Backend::Fdinfo,
        what: Operation::ListDescriptors,
        why: Limitation::NeedsBpf,
    }
}

/// The threads of a process.
pub(super) fn threads(pid: u32) -> Result<Vec<u32>, Error> {
    let path = format!("/proc/{pid}/task");
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Error::NoSuchProcess { pid },
        _ => Error::Os {
            operation: format!("list {path}"),
            source,
        },
    };
    let mut tids = Vec::new();
    for entry in fs::read_dir(&path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        tids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(tids)
}
