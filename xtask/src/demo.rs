//! `cargo xtask demo`: a program with known rings, and what `uringctl` shows of it.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Context as _, Result};
use xtask_base::Flavour;

use crate::kernel;
use crate::run::{cmd, echo, heading, line, Cmd};
use crate::vm::{self, Vm};
use crate::{system, workspace};

/// What is shown, and by which command.
const SHOWN: &[(&str, &str)] = &[
    (
        "Its registered buffers, and the memory they pin",
        "uringctl bufs",
    ),
    ("Its registered files", "uringctl files"),
    ("Its rings", "uringctl list"),
    (
        "Its buffers again, by a short program (examples/dump_bufs.rs)",
        "examples/dump_bufs",
    ),
];

/// Builds `uringctl` and the workload, and shows the one at work on the other.
pub(crate) fn demo() -> Result<()> {
    build()?;
    show("--preset demo", "")?;
    println!("Try it on any process that uses io_uring:");
    println!("  {} --help", built()?.join("uringctl").display());
    Ok(())
}

/// The same in a machine with the kernel of a series; gives the exit status.
pub(crate) fn in_guest(series: &str) -> Result<u8> {
    build()?;
    heading("A kernel with the patches");
    let image = kernel::build(series, Flavour::Plain)?;
    let program = std::env::current_exe().context("no path of this program")?;
    let script = format!("uname -sr; exec {} demo --in-guest", program.display());
    vm::vm(&Vm::new(&image, Flavour::Plain, 300, script))
}

/// What is shown in that machine: rings with descriptors, by which the native
/// iterators attach.
pub(crate) fn native() -> Result<()> {
    show(
        "--rings 2 --bufs 3 --len 8192 --tag 4660 --files 2",
        "--backend native",
    )
}

fn build() -> Result<()> {
    heading("Packages that the build needs");
    system::ensure(system::BUILD)?;

    heading("Build");
    let packages = "-p uring-tools -p uring-testkit -p uring-bpf-iter";
    let targets = "--bin uringctl --bin workload --example dump_bufs";
    line(&format!("cargo build --release {packages} {targets}")).run()
}

fn built() -> Result<PathBuf> {
    Ok(workspace::target_dir()?.join("release"))
}

/// Starts a workload and runs the commands on it.
fn show(rings: &str, options: &str) -> Result<()> {
    let built = built()?;
    heading("A program with io_uring instances of known contents");
    let workload = Workload::start(cmd([built.join("workload")]).args(rings.split_whitespace()))?;
    let pid = workload.child.id();
    if !system::is_root() {
        println!(
            "(not root: the BPF backends are out of reach, and the commands say what they use)"
        );
    }

    let mut failed = Vec::new();
    for (title, shown) in SHOWN {
        heading(title);
        let (program, subcommand) = shown.split_once(' ').unwrap_or((shown, ""));
        let command = cmd([built.join(program)])
            .args(subcommand.split_whitespace())
            .args(["--pid", &pid.to_string()])
            .args(options.split_whitespace());
        if let Err(error) = command.run() {
            println!("{error:#}");
            failed.push(*shown);
        }
    }

    heading("End");
    workload.stop()?;
    if !failed.is_empty() {
        bail!("the demo failed in: {}", failed.join(", "));
    }
    println!("The workload has ended.");
    Ok(())
}

/// The beginning of a long line.
fn shorten(line: &str) -> String {
    match line.char_indices().nth(200) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line.to_owned(),
    }
}

/// The running workload; ends with this value.
struct Workload {
    child: Child,
    /// The workload stays until this is closed.
    stdin: Option<ChildStdin>,
}

impl Workload {
    /// Starts it and waits for the line that says that its rings are set up.
    fn start(command: Cmd) -> Result<Self> {
        let shown = command.shown();
        echo(&format!("{shown} &"));
        let mut child = Command::from(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{shown}`"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let mut workload = Self { child, stdin };

        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut ready = String::new();
            if let Some(stdout) = stdout {
                let mut stdout = BufReader::new(stdout);
                let _ = stdout.read_line(&mut ready);
                let _ = sender.send(ready);
                // Nothing it prints later may fill the pipe and stop it.
                let _ = std::io::copy(&mut stdout, &mut std::io::sink());
            }
        });
        match receiver.recv_timeout(Duration::from_secs(30)) {
            Ok(ready) if !ready.is_empty() => println!("{}", shorten(ready.trim_end())),
            Ok(_) => bail!("the workload ended at once: {}", workload.child.wait()?),
            Err(_) => bail!("the workload is not ready after 30 seconds"),
        }
        Ok(workload)
    }

    /// Asks it to end, and wants it to end well.
    fn stop(mut self) -> Result<()> {
        self.stdin = None;
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().context("cannot wait")? {
                if status.success() {
                    return Ok(());
                }
                bail!("the workload ended badly: {status}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("the workload did not end when its standard input was closed");
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // Both do nothing to a child that has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
