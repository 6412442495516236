//! `uringctl files`: the registered files of each ring, and which of them its
//! process also has a descriptor for.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::json;
use uring_bpf_iter::{
    Backend, Consistency, DescriptorReader, Descriptors, Error, FileIdentity, RegisteredFile, Ring,
    UringFileIter, UringFileReader,
};

use crate::args::{Format, Rings};
use crate::exit::Stop;
use crate::json::{time_ms, Line};
use crate::process::Containers;
use crate::rings;
use crate::table::Table;
use crate::text::{self, count, device, how_read, or_unknown, printable};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    rings: Rings,
    /// Show the path of each file as well, where it can be found out
    #[arg(long)]
    paths: bool,
}

pub(crate) fn main(options: &Options) -> ExitCode {
    let args = &options.rings;
    let mut looker = Looker::new(args);
    rings::main("files", args, |run, rings, out| {
        let several = rings.len() > 1 && !args.all_slots;
        let mut containers = Containers::default();
        let mut bare = 0;
        for ring in &rings {
            let Some(seen) = run.noted(looker.look(options, ring)) else {
                continue;
            };
            match args.common.format {
                Format::Json => print_json(args, &mut containers, &seen, out)?,
                Format::Table if several && seen.files.is_empty() => bare += 1,
                Format::Table => print_table(options, &seen, out)?,
            }
        }
        text::print_bare(bare, "files", out)?;
        Ok(())
    })
}

/// The table of one ring, and the descriptors of its process.
struct Seen<'a> {
    ring: &'a Ring,
    files: Vec<RegisteredFile>,
    consistency: Consistency,
    backend: Backend,
    /// `None` without registered files, which could be among them.
    descriptors: Option<Descriptors>,
    /// One for each slot; `None` without --paths.
    paths: Vec<Option<PathBuf>>,
}

impl Seen<'_> {
    fn owner_fds(&self, file: &FileIdentity) -> &[i32] {
        let descriptors = self.descriptors.as_ref();
        descriptors.map_or(&[], |descriptors| descriptors.of(file))
    }
}

/// Looks at one ring after another, with what was loaded for those before.
struct Looker {
    reader: UringFileReader,
    owners: Owners,
    paths: Paths,
}

impl Looker {
    fn new(args: &Rings) -> Self {
        Self {
            reader: args.reader(),
            owners: Owners::default(),
            paths: Paths::default(),
        }
    }

    fn look<'a>(&mut self, options: &Options, ring: &'a Ring) -> Result<Seen<'a>, Error> {
        let args = &options.rings;
        let snapshot = args.read(&mut self.reader, ring)?;
        let (consistency, backend) = (snapshot.consistency(), snapshot.backend());
        let files = snapshot.to_vec();
        let descriptors = match files.iter().all(RegisteredFile::is_empty_slot) {
            true => None,
            false => Some(self.owners.descriptors(args.holder(ring).tid)?),
        };
        let paths = match &descriptors {
            Some(descriptors) if options.paths => {
                let iter = self.paths.of(args, ring)?;
                (files.iter())
                    .map(|slot| path(iter, descriptors, slot))
                    .collect::<Result<_, _>>()?
            }
            _ => vec![None; files.len()],
        };
        Ok(Seen {
            ring,
            files,
            consistency,
            backend,
            descriptors,
            paths,
        })
    }
}

/// Reads descriptors, by what is loaded when it is first needed.
#[derive(Default)]
struct Owners(Option<DescriptorReader>);

impl Owners {
    fn descriptors(&mut self, tid: u32) -> Result<Descriptors, Error> {
        let reader = match self.0.take() {
            Some(reader) => reader,
            None => DescriptorReader::new()?,
        };
        self.0.insert(reader).read_thread(tid)
    }
}

/// The reader that the kernel tells paths by, if it does.
#[derive(Default)]
struct Paths(Option<UringFileIter>);

impl Paths {
    /// Attaches to this ring.
    fn of(&mut self, args: &Rings, ring: &Ring) -> Result<&mut UringFileIter, Error> {
        let loaded = self.0.take();
        let turned = loaded.and_then(|mut iter| iter.reattach(ring).is_ok().then_some(iter));
        let options = UringFileIter::options().backend(args.common.backend());
        let iter = turned.map_or_else(|| options.attach_ring(ring), Ok)?;
        Ok(self.0.insert(iter))
    }
}

/// By a descriptor of the process, else by the kernel's iterator.
fn path(
    iter: &mut UringFileIter,
    descriptors: &Descriptors,
    slot: &RegisteredFile,
) -> Result<Option<PathBuf>, Error> {
    let Some(file) = slot.file() else {
        return Ok(None);
    };
    match descriptors.path(file) {
        Some(Ok(path)) => Ok(Some(path)),
        _ => match iter.path(slot.index()) {
            // A path that is too long hides no other.
            Err(Error::Unsupported { .. } | Error::Os { .. }) => Ok(None),
            told => told,
        },
    }
}

/// The slots that are to be shown, with their paths.
fn shown<'a>(
    args: &Rings,
    seen: &'a Seen<'_>,
) -> impl Iterator<Item = (&'a RegisteredFile, Option<String>)> {
    let all = args.all_slots;
    (seen.files.iter().zip(&seen.paths))
        .filter(move |(slot, _)| all || !slot.is_empty_slot())
        .map(|(slot, path)| (slot, path.as_ref().map(|path| path.display().to_string())))
}

fn print_json(
    args: &Rings,
    containers: &mut Containers,
    seen: &Seen<'_>,
    out: &mut dyn Write,
) -> Result<(), Stop> {
    let read = json!({
        "time_ms": time_ms(),
        "backend": seen.backend.to_string(),
        "consistency": seen.consistency.to_string(),
        "nr_files": seen.files.len(),
    });
    rings::line(containers, seen.ring, read)?.print(out)?;
    let mut line = Line::new("file").with(args.key(seen.ring))?;
    for (slot, path) in shown(args, seen) {
        let file = File {
            slot,
            path,
            owner_pid: args.holder(seen.ring).pid,
            owner_fds: slot.file().map(|file| seen.owner_fds(file)),
        };
        line.print_with(file, out)?;
    }
    Ok(())
}

/// The keys of a registered file.
#[derive(Serialize)]
struct File<'a> {
    #[serde(flatten)]
    slot: &'a RegisteredFile,
    path: Option<String>,
    owner_pid: u32,
    owner_fds: Option<&'a [i32]>,
}

fn print_table(options: &Options, seen: &Seen<'_>, out: &mut dyn Write) -> Result<(), Stop> {
    let args = &options.rings;
    text::print_ring(seen.ring, args, out)?;
    let filled = seen.files.iter().filter_map(RegisteredFile::file);
    let direct = |file: &&FileIdentity| seen.owner_fds(file).is_empty();
    writeln!(
        out,
        "  {} in {}, {} without a descriptor in {} ({})",
        count(filled.clone().count(), "file"),
        count(seen.files.len(), "slot"),
        filled.filter(direct).count(),
        text::task(args.holder(seen.ring)),
        how_read(seen.consistency, "uring_lock"),
    )?;
    if shown(args, seen).next().is_some() {
        let header = [
            "INDEX",
            "KIND",
            "INODE",
            "DEVICE",
            "FLAGS",
            "POSITION",
            "OWNER FDS",
            "TAG",
            "PATH",
        ];
        let mut table = Table::new(header, &[0, 2, 3, 4, 5, 7]);
        for (slot, path) in shown(args, seen) {
            table.add(row(seen, slot, path));
        }
        if !options.paths {
            table.hide(8);
        }
        table.print_indented(out)?;
    }
    writeln!(out)?;
    Ok(())
}

fn row(seen: &Seen<'_>, slot: &RegisteredFile, path: Option<String>) -> Vec<String> {
    let Some(file) = slot.file() else {
        return vec![slot.index().to_string(), "empty".into()];
    };
    let fds: Vec<String> = (seen.owner_fds(file).iter()).map(i32::to_string).collect();
    vec![
        slot.index().to_string(),
        file.kind().to_string(),
        file.inode().to_string(),
        device(file),
        format!("{:#o}", file.flags()),
        file.position().to_string(),
        match fds.is_empty() {
            true => "none".into(),
            false => fds.join(","),
        },
        format!("{:#x}", slot.tag()),
        or_unknown(path.map(|path| printable(&path))),
    ]
}
