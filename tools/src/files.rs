//! `uringctl files`: the registered files of each ring, and which of them its
//! process also has a descriptor for.

use std::borrow::Cow;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::{json, Value};
use uring_bpf_iter::{
    Backend, Consistency, DescriptorReader, Descriptors, Error, FileIdentity, RegisteredFile, Ring,
    UringFileIter, UringFileReader,
};

use crate::args::{Format, Rings};
use crate::exit::Stop;
use crate::json::{time_ms, Line};
use crate::process::{hexadecimal, Containers};
use crate::rings;
use crate::table::Table;
use crate::text::{self, count, device, how_read, kind, open_flags, or_unknown, printable, size};

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
    /// One for each slot, as the kernel shows it; `None` without --paths.
    paths: Vec<Option<PathBuf>>,
}

impl Seen<'_> {
    fn owner_fds(&self, file: &FileIdentity) -> &[i32] {
        let descriptors = self.descriptors.as_ref();
        descriptors.map_or(&[], |descriptors| descriptors.of(file))
    }

    /// The device that stat(2) tells, where a record does not say it.
    fn stat_device(&self, slot: &RegisteredFile) -> Option<(u32, u32)> {
        let file = slot.file().filter(|file| file.stat_device().is_none())?;
        self.descriptors.as_ref()?.stat_device(file)?.ok()
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
        let mut files = snapshot.to_vec();
        let descriptors = match files.iter().all(RegisteredFile::is_empty_slot) {
            true => None,
            false => Some(self.owners.descriptors(args.holder(ring).tid)?),
        };
        let paths = match &descriptors {
            Some(descriptors) if options.paths => {
                let iter = self.paths.of(args, ring)?;
                let mut paths = (files.iter())
                    .map(|slot| path(iter, descriptors, slot))
                    .collect::<Result<Vec<_>, _>>()?;
                self.look_again(args, ring, &mut files, &mut paths);
                paths
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

    /// Adds the paths that only the text of the ring has, and takes the records of now for
    /// files that are still in their slots: a path that ends in ` (deleted)` may be that of
    /// a file that was deleted since.
    ///
    /// A look that fails changes nothing, so that these paths stay unknown.
    fn look_again(
        &mut self,
        args: &Rings,
        ring: &Ring,
        files: &mut [RegisteredFile],
        paths: &mut [Option<PathBuf>],
    ) {
        let mut slots = files.iter().zip(&*paths);
        let is_unknown = |(slot, path): (&RegisteredFile, &Option<PathBuf>)| {
            !slot.is_empty_slot() && path.is_none()
        };
        let any_unknown = slots.clone().any(is_unknown);
        let any_marked = slots.any(|(slot, path)| is_marked(slot, path.as_deref()));
        if !any_unknown && !any_marked {
            return;
        }
        let told = match any_unknown {
            true => self.reader.paths(ring).unwrap_or_default(),
            false => Vec::new(),
        };
        let Ok(now) = args.read(&mut self.reader, ring) else {
            return;
        };
        let mut told = told.into_iter();
        for (at, (slot, path)) in files.iter_mut().zip(paths).enumerate() {
            let told = told.next().flatten();
            let now = now.get(at).filter(|now| is_same(slot, now));
            let Some(now) = now else {
                continue;
            };
            *slot = *now;
            if path.is_none() {
                *path = told;
            }
        }
    }
}

/// True for a slot that holds the file that it held before.
fn is_same(before: &RegisteredFile, now: &RegisteredFile) -> bool {
    let same = |(before, now): (&FileIdentity, &FileIdentity)| before.same_file(now);
    before.tag() == now.tag() && before.file().zip(now.file()).is_some_and(same)
}

/// True for a path that says of a file that it is deleted, where its record does not.
fn is_marked(slot: &RegisteredFile, path: Option<&Path>) -> bool {
    let deleted = slot.file().and_then(FileIdentity::is_deleted);
    let marked = |path: &Path| path.as_os_str().as_bytes().ends_with(b" (deleted)");
    deleted == Some(false) && path.is_some_and(marked)
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

/// As the record says it, by a descriptor of the process, else by the kernel's iterator.
fn path(
    iter: &mut UringFileIter,
    descriptors: &Descriptors,
    slot: &RegisteredFile,
) -> Result<Option<PathBuf>, Error> {
    let Some(file) = slot.file() else {
        return Ok(None);
    };
    if let Some(path) = file.inner_path() {
        return Ok(Some(path.into()));
    }
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
) -> impl Iterator<Item = (&'a RegisteredFile, Option<&'a Path>)> {
    let all = args.all_slots;
    let bare = |(slot, path): (&'a RegisteredFile, &'a Option<PathBuf>)| {
        let path = path.as_deref();
        let path = path.map(|path| slot.file().map_or(path, |file| file.unmarked(path)));
        (slot, path)
    };
    (seen.files.iter().zip(&seen.paths))
        .filter(move |(slot, _)| all || !slot.is_empty_slot())
        .map(bare)
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
        "nr_file_slots": seen.files.len(),
        "nr_files_filled": seen.files.iter().filter_map(RegisteredFile::file).count(),
    });
    rings::line(containers, seen.ring, read)?.print(out)?;
    let mut line = Line::new("file").with(args.key(seen.ring))?;
    for (slot, path) in shown(args, seen) {
        let file = File {
            slot: described(seen, slot)?,
            path: path.map(Path::to_string_lossy),
            path_bytes: path.and_then(|path| hexadecimal(path.as_os_str().as_bytes())),
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
    slot: Described<'a>,
    path: Option<Cow<'a, str>>,
    /// In hexadecimal, of a path that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
    owner_pid: u32,
    owner_fds: Option<&'a [i32]>,
}

/// A record as it is, or with what was found out beside it.
#[derive(Serialize)]
#[serde(untagged)]
enum Described<'a> {
    Record(&'a RegisteredFile),
    Completed(Value),
}

fn described<'a>(seen: &Seen<'_>, slot: &'a RegisteredFile) -> io::Result<Described<'a>> {
    let Some((major, minor)) = seen.stat_device(slot) else {
        return Ok(Described::Record(slot));
    };
    let mut keys = serde_json::to_value(slot)?;
    keys["stat_device"] = format!("{major}:{minor}").into();
    Ok(Described::Completed(keys))
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
            "SIZE",
            "LINKS",
            "FLAGS",
            "POSITION",
            "OWNER FDS",
            "TAG",
            "PATH",
        ];
        let mut table = Table::new(header, &[0, 2, 3, 4, 5, 7, 9]);
        for (slot, path) in shown(args, seen) {
            table.add(row(seen, slot, path));
        }
        if !options.paths {
            table.hide(10);
        }
        table.print_indented(out)?;
    }
    writeln!(out)?;
    Ok(())
}

fn row(seen: &Seen<'_>, slot: &RegisteredFile, path: Option<&Path>) -> Vec<String> {
    let Some(file) = slot.file() else {
        return vec![slot.index().to_string(), "empty".into()];
    };
    let fds: Vec<String> = (seen.owner_fds(file).iter()).map(i32::to_string).collect();
    vec![
        slot.index().to_string(),
        kind(file),
        file.inode().to_string(),
        device(file),
        size(file),
        or_unknown(file.nlink()),
        open_flags(file),
        file.position().to_string(),
        match fds.is_empty() {
            true => "none".into(),
            false => fds.join(","),
        },
        format!("{:#x}", slot.tag()),
        or_unknown(path.map(|path| printable(&path.to_string_lossy()))),
    ]
}
