//! `cargo xtask kernel check`: that each patch of a series by itself builds, with
//! one of its subsystems missing too, and is clean. The result is a table.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xtask_base::run::heading;
use xtask_base::system;

use crate::lint::{self, Linter};
use crate::source::Source;
use crate::{cache, config, make, patches};

/// A column of the table.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Column {
    /// A small kernel with all that the patches touch, and BTF.
    All,
    /// A small kernel without io_uring.
    NoIoUring,
    /// A small kernel without the bpf system call.
    NoBpf,
    /// A small kernel without epoll.
    NoEpoll,
    /// gcc with W=1, on the C files that the patch touches.
    W1,
    /// sparse, on the same files: nothing that it did not say before.
    Sparse,
    /// checkpatch --strict --no-signoff.
    Checkpatch,
}

use Column::{All, Checkpatch, NoBpf, NoEpoll, NoIoUring, Sparse, W1};

const COLUMNS: [Column; 7] = [All, NoIoUring, NoBpf, NoEpoll, W1, Sparse, Checkpatch];

impl Column {
    fn title(self) -> &'static str {
        match self {
            All => "all",
            NoIoUring => "IO_URING=n",
            NoBpf => "BPF_SYSCALL=n",
            NoEpoll => "EPOLL=n",
            W1 => "W=1",
            Sparse => "sparse",
            Checkpatch => "checkpatch",
        }
    }

    /// For a column that builds a kernel: its folder, and what it asks for on top
    /// of config.check.
    fn build(self) -> Option<(&'static str, &'static str)> {
        match self {
            All => Some(("check-all", WITH_BTF)),
            NoIoUring => Some(("check-no-io_uring", "# CONFIG_IO_URING is not set\n")),
            NoBpf => Some(("check-no-bpf", "# CONFIG_BPF_SYSCALL is not set\n")),
            NoEpoll => Some(("check-no-epoll", "# CONFIG_EPOLL is not set\n")),
            W1 | Sparse | Checkpatch => None,
        }
    }
}

/// Type information: without it nobody asks whether BTF_ID() names anything. (Some of
/// the base's own name what is in net/ and crypto/.)
const WITH_BTF: &str = "\
CONFIG_DEBUG_KERNEL=y
CONFIG_DEBUG_INFO_DWARF5=y
CONFIG_DEBUG_INFO_BTF=y
CONFIG_NET=y
CONFIG_CRYPTO=y
";

/// How a patch did in a column.
enum Cell {
    Ok,
    /// Nothing to check.
    None,
    /// It was not looked at, though it should be.
    NotRun,
    /// What was found.
    Bad(String),
}

/// Checks the patches of a series from number `from` on, in all columns or some; says
/// whether all is well.
pub(crate) fn check(series: &str, only: &[Column], from: usize) -> Result<bool> {
    let source = Source::of(series)?;
    system::ensure_quietly(system::KERNEL)?;
    system::ensure_quietly(system::KERNEL_CHECK)?;
    let patches = patches::of(series)?;
    let chosen = |column: &Column| only.is_empty() || only.contains(column);
    let columns: Vec<Column> = COLUMNS.into_iter().filter(chosen).collect();

    let home = source.home()?;
    let _lock = cache::lock(&home)?;
    let tree = source.tree(&home)?;
    let before = from.saturating_sub(1).min(patches.len());
    patches::bring_to(&home, &patches[..before])?;
    for column in &columns {
        configure(*column, &home, &tree)?;
    }
    let mut linter = Linter::new(series, &home, &tree)?;

    let mut rows = Vec::new();
    for (at, patch) in patches.iter().enumerate().skip(before) {
        let name = patch.file_stem().unwrap_or_default().to_string_lossy();
        heading(&name);
        let touched = patches::touched_by(patch)?;
        let c_files = lint::kernel_c_files(&touched);
        if columns.contains(&W1) || columns.contains(&Sparse) {
            linter.look_before(&c_files, &touched)?;
        }
        patches::bring_to(&home, &patches[..=at])?;
        let mut row = Vec::new();
        for column in &columns {
            let cell = match column {
                W1 => findings(linter.new_warnings(&c_files)?),
                Sparse => match findings(linter.new_sparse(&c_files)?) {
                    Cell::Ok if linter.has_no_sparse() => Cell::NotRun,
                    cell => cell,
                },
                Checkpatch => findings(Some(lint::checkpatch(&tree, patch)?)),
                All | NoIoUring | NoBpf | NoEpoll if lint::is_compiled(&touched) => {
                    build(*column, &home, &tree)
                }
                // The kernel is that of the patch before.
                All | NoIoUring | NoBpf | NoEpoll => Cell::None,
            };
            if let Cell::Bad(found) = &cell {
                println!("{}: {found}", column.title());
            }
            row.push(cell);
        }
        rows.push((name.into_owned(), row));
    }
    Ok(table(&columns, &rows))
}

fn configure(column: Column, home: &Path, tree: &Path) -> Result<()> {
    let Some((folder, options)) = column.build() else {
        return Ok(());
    };
    let own = home.join(format!("{folder}.config"));
    fs::write(&own, options).with_context(|| format!("cannot write {}", own.display()))?;
    let fragments = [PathBuf::from("kernel/config.check"), own];
    config::configure(tree, &home.join(folder), &fragments)
}

fn build(column: Column, home: &Path, tree: &Path) -> Cell {
    let Some((folder, _)) = column.build() else {
        return Cell::None;
    };
    let log = home.join(format!("{folder}.log"));
    match make::run(tree, &home.join(folder), &["vmlinux"], &log) {
        Ok(warnings) => findings(Some(warnings)),
        Err(error) => Cell::Bad(format!("{error:#}")),
    }
}

/// A cell of what was found; `None`: there was nothing to look at.
fn findings(found: Option<Vec<String>>) -> Cell {
    match found {
        None => Cell::None,
        Some(lines) if lines.is_empty() => Cell::Ok,
        Some(lines) => Cell::Bad(lines.join("\n  ")),
    }
}

/// Prints the table; says whether nothing bad is in it.
fn table(columns: &[Column], rows: &[(String, Vec<Cell>)]) -> bool {
    heading("Summary");
    print!("{:<44}", "patch");
    for column in columns {
        print!(" {:>13}", column.title());
    }
    println!();
    let (mut bad, mut not_run) = (0, 0);
    for (name, row) in rows {
        print!("{:<44}", name.chars().take(44).collect::<String>());
        for cell in row {
            let word = match cell {
                Cell::Ok => "ok",
                Cell::None => "-",
                Cell::NotRun => {
                    not_run += 1;
                    "NOT RUN"
                }
                Cell::Bad(_) => {
                    bad += 1;
                    "BAD"
                }
            };
            print!(" {word:>13}");
        }
        println!();
    }
    println!("\n{} patches, {bad} findings", rows.len());
    if not_run > 0 {
        println!("NOT CHECKED {not_run} times: sparse, of which this kernel wants a newer one");
    }
    bad == 0
}
