//! `uringctl`: what lives inside the io_uring instances of a machine.
//!
//! This file is the command line; each subcommand has a module.

mod args;
mod bufs;
mod epoll;
mod exit;
mod files;
mod json;
mod list;
mod pages;
mod process;
mod rings;
mod run;
mod table;
mod text;
mod totals;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Shows the io_uring instances of a machine, what is registered in them, and
/// the items of epoll sets
#[derive(Parser)]
#[command(name = "uringctl", version, after_help = exit::CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the io_uring instances, one a line
    #[command(after_help = exit::CODES)]
    List(list::Options),
    /// Show registered buffers, and the memory that they pin
    #[command(after_help = exit::CODES)]
    Bufs(bufs::Options),
    /// Show registered files, including direct descriptors
    #[command(after_help = exit::CODES)]
    Files(files::Options),
    /// Show the items of epoll sets: which files they wait for, which events,
    /// and the data that comes with them; or which sets wait for a file
    #[command(after_help = exit::CODES)]
    Epoll(epoll::Options),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::List(options) => list::main(&options),
        Command::Bufs(options) => bufs::main(&options),
        Command::Files(options) => files::main(&options),
        Command::Epoll(options) => epoll::main(&options),
    }
}
