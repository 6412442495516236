//! Other programs: the workload, `uringctl`, the examples, and this program again.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use uring_testkit::Workload;

/// A user without rights.
pub(crate) const NOBODY: u32 = 65534;

#[track_caller]
pub(crate) fn workload(args: &str) -> Workload {
    Workload::spawn(args.split_whitespace()).unwrap_or_else(|e| panic!("workload {args}: {e}"))
}

/// `uringctl` of the same build.
#[track_caller]
pub(crate) fn tool() -> PathBuf {
    built("uringctl", "cargo build -p uring-tools")
}

/// An example of the same build.
#[track_caller]
pub(crate) fn example(name: &str) -> PathBuf {
    built(&format!("examples/{name}"), "cargo build --examples")
}

/// What lies in the folder of this program's build, or above it.
#[track_caller]
fn built(path: &str, command: &str) -> PathBuf {
    let me = std::env::current_exe().expect("my own path");
    let folders = me.ancestors().skip(1).take(2);
    let found = folders
        .map(|dir| dir.join(path))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        let near = me.display();
        panic!("no {path} near {near}: run `{command}` (same profile)")
    })
}

/// This program, which then does `mode` and no trials.
pub(crate) fn again(mode: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("my own path"));
    command.env(super::inner::MODE, mode);
    command
}

/// The same in a pid namespace of its own, with a /proc of its own.
pub(crate) fn in_pid_namespace(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .arg(program);
    command
}

/// A copy that every user may execute, wherever the build is.
pub(crate) fn for_everyone(program: &Path) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _copying = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = copies();
    fs::create_dir_all(&dir).expect("a directory for copies");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("chmod");
    let copy = dir.join(program.file_name().expect("a file name"));
    if !copy.exists() {
        fs::copy(program, &copy).expect("copy");
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    copy
}

fn copies() -> PathBuf {
    std::env::temp_dir().join(format!("uring-suite-{}", std::process::id()))
}

/// Removes the copies.
pub(crate) fn clean_up() {
    let _there_may_be_none = fs::remove_dir_all(copies());
}

/// What a program left behind.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a program to its end.
#[track_caller]
pub(crate) fn output(command: &mut Command) -> Output {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = spawn(command).unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = wait(&mut child).unwrap_or_else(|| panic!("{command:?} did not end"));
    Output {
        status,
        stdout: stdout.join().expect("reader"),
        stderr: stderr.join().expect("reader"),
    }
}

/// Starts a program that may just have been copied: it is busy for as long as
/// the child that another thread forks has the copy open.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    loop {
        match command.spawn() {
            Err(e) if e.raw_os_error() == Some(libc::ETXTBSY) => {
                thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_string(&mut text).expect("UTF-8");
        }
        text
    })
}

/// Waits; kills what does not end.
pub(crate) fn wait(child: &mut Child) -> Option<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < super::limits::of_a_program() {
        if let Some(status) = child.try_wait().expect("wait") {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("kill");
    child.wait().expect("wait");
    None
}

/// A child that is killed and collected at the end of its scope.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _already_ended = self.0.kill();
        let _already_collected = self.0.wait();
    }
}

/// A process without any ring.
pub(crate) fn idle_process() -> Killed {
    let child = Command::new("sleep")
        .arg("600")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Killed(child.expect("sleep"))
}
