//! A virtual machine that runs one command, by vmtest.
//!
//! The command's output does not come by vmtest's own way, which joins standard
//! output and error and drops lines that are no UTF-8: the guest writes both to
//! files of a folder that the host follows.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use vmtest::output::Output;
use vmtest::{Config, Target, VMConfig, Vmtest};

use crate::accelerator::Accelerator;
use crate::patience::Patience;

/// A machine that can be started.
pub(crate) struct Machine<'a> {
    pub(crate) image: &'a Path,
    pub(crate) accelerator: Accelerator,
    pub(crate) kernel_arguments: &'a str,
    pub(crate) cpus: u8,
    pub(crate) memory: &'a str,
    /// Seconds for everything.
    pub(crate) limit: u32,
    /// The current folder of the command: the same path here and there.
    pub(crate) dir: &'a Path,
}

/// What is left when it has ended.
pub(crate) struct Ended {
    /// The command's exit status, if it came so far.
    pub(crate) status: Option<i32>,
    /// What vmtest could not do.
    pub(crate) trouble: Option<anyhow::Error>,
    /// The kernel's log: read in the guest after the command, and the serial line's.
    pub(crate) dmesg: Option<String>,
    pub(crate) serial: String,
    pub(crate) lockdep_stats: Option<String>,
    /// What QEMU itself had to say.
    pub(crate) qemu: String,
    /// The guest's seconds up to the command.
    pub(crate) booted: String,
    pub(crate) took: Duration,
}

const GUEST: &str = include_str!("guest.sh");
const QEMU: &str = include_str!("qemu.sh");
/// The tag of the run's folder, and where the guest mounts it.
const TAG: &str = "run";
const RUN: &str = "/run/vm";

impl Machine<'_> {
    /// Boots, runs a shell command, and hands its output on.
    pub(crate) fn run(&self, command: &str) -> Result<Ended> {
        let start = Instant::now();
        let scratch = tempfile::Builder::new().prefix("vm-").tempdir()?;
        let run = scratch.path();
        fs::write(run.join("command"), command)?;
        fs::write(run.join("dir"), self.dir.as_os_str().as_encoded_bytes())?;
        fs::write(run.join("guest"), GUEST)?;
        for name in ["out", "err", "status"] {
            File::create(run.join(name))?;
        }
        let qemu = run.join("qemu");
        let script = QEMU
            .replace("LIMIT", &self.limit.to_string())
            .replace("ACCELERATOR", self.accelerator.arguments());
        fs::write(&qemu, script)?;
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o700))?;

        let vmtest = Vmtest::new(self.dir, self.config(run, &qemu))?;
        let (sender, receiver) = mpsc::channel();
        let mut out = Follower::new(&run.join("out"), io::stdout())?;
        let mut err = Follower::new(&run.join("err"), io::stderr())?;
        let mut serial = String::new();
        let mut trouble = None;
        let patience = Patience::default();
        thread::scope(|scope| {
            scope.spawn(|| {
                vmtest.run_one(0, sender);
                patience.end();
            });
            scope.spawn(|| patience.watch(run));
            scope.spawn(|| patience.serve(run));
            loop {
                match receiver.recv_timeout(Duration::from_millis(50)) {
                    Ok(Output::Boot(line)) => {
                        patience.hear(&line);
                        serial += line.trim_end();
                        serial.push('\n');
                    }
                    Ok(Output::BootEnd(Err(error)))
                    | Ok(Output::SetupEnd(Err(error)))
                    | Ok(Output::CommandEnd(Err(error))) => trouble = Some(error),
                    // Only the way into the guest script can print here.
                    Ok(Output::Command(line)) => eprintln!("vm: {line}"),
                    Ok(_) | Err(mpsc::RecvTimeoutError::Timeout) => {}
                    // All of vmtest's threads have ended, and QEMU with them.
                    Err(mpsc::RecvTimeoutError::Disconnected) => break,
                }
                out.follow();
                err.follow();
            }
        });
        out.follow();
        err.follow();

        let read = |name: &str| {
            let bytes = fs::read(run.join(name)).ok();
            bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Ended {
            status: read("status").and_then(|status| status.trim().parse().ok()),
            trouble,
            dmesg: read("dmesg"),
            serial,
            lockdep_stats: read("lockdep_stats"),
            qemu: read("qemu.err").unwrap_or_default(),
            booted: read("booted").unwrap_or_default().trim().to_owned(),
            took: start.elapsed(),
        })
    }

    fn config(&self, run: &Path, qemu: &Path) -> Config {
        // Without a cache: what the guest writes is in the host's file at once,
        // also when the guest crashes next.
        let share = format!(
            "local,id={TAG},path={},mount_tag={TAG},security_model=none,multidevs=remap",
            run.display()
        );
        let command = format!(
            "mkdir -p {RUN} && mount -t 9p -o trans=virtio,version=9p2000.L,cache=none {TAG} {RUN} \
             && exec bash {RUN}/guest {RUN} 2>{RUN}/guest.err"
        );
        let target = Target {
            name: "vm".into(),
            kernel: Some(self.image.to_owned()),
            kernel_args: Some(self.kernel_arguments.to_owned()),
            qemu_command: Some(qemu.display().to_string()),
            command,
            vm: VMConfig {
                num_cpus: self.cpus,
                memory: self.memory.to_owned(),
                // Its ACPI tables hold no loops: a debug kernel, emulated, needs more
                // than 30 s for one of those of the default machine and gives it up.
                extra_args: ["-machine", "q35", "-virtfs", &share]
                    .map(String::from)
                    .into(),
                ..VMConfig::default()
            },
            ..Target::default()
        };
        Config {
            target: vec![target],
        }
    }
}

/// Hands on what is added to a file.
struct Follower<W> {
    file: File,
    to: W,
}

impl<W: Write> Follower<W> {
    fn new(path: &Path, to: W) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { file, to })
    }

    fn follow(&mut self) {
        let mut bytes = Vec::new();
        // Nobody reads any more: the command goes on nevertheless.
        let _ = self.file.read_to_end(&mut bytes);
        if !bytes.is_empty() {
            let _ = self.to.write_all(&bytes);
            let _ = self.to.flush();
        }
    }
}
