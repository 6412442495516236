//! The kernel's make: its progress in a few lines, its log in a file, and of a
//! broken build only what broke.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Context as _, Result};
use xtask_base::run::{cmd, Cmd};

/// How often a line of progress is shown.
const PROGRESS: Duration = Duration::from_secs(20);
/// How many lines of a broken build are shown.
const SHOWN: usize = 40;

fn make(tree: &Path, build: &Path) -> Cmd {
    let mut out = std::ffi::OsString::from("O=");
    out.push(build);
    // The same sources give the same image, whoever builds them and when.
    cmd(["make", "--no-print-directory", "-C"])
        .arg(tree)
        .arg(out)
        .env("LC_ALL", "C")
        .env("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970")
        .env("KBUILD_BUILD_USER", "xtask")
        .env("KBUILD_BUILD_HOST", "uring-bpf-iter")
}

/// Makes a quick target without showing anything, unless it fails.
pub(crate) fn quietly(tree: &Path, build: &Path, target: &str) -> Result<String> {
    make(tree, build).arg(target).read()
}

/// Makes one object, with an argument to make; gives all that is said.
pub(crate) fn object(tree: &Path, build: &Path, argument: &str, object: &str) -> Result<String> {
    let made = make(tree, build).args([argument, object]).merged();
    let made = made.output()?;
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    if !made.status.success() {
        bail!("{object} does not build with {argument}:\n{said}");
    }
    Ok(said)
}

/// Makes targets; everything that is said goes to `log`. Gives the warnings.
pub(crate) fn run(tree: &Path, build: &Path, targets: &[&str], log: &Path) -> Result<Vec<String>> {
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let command = make(tree, build).arg(format!("-j{jobs}")).args(targets);
    println!("$ {}", command.shown());
    println!("  (its output goes to {})", log.display());

    let start = Instant::now();
    let mut child = Command::from(command.merged())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start make")?;
    let output = child.stdout.take().context("make has no output")?;
    let lines = tee(output, File::create(log).context("cannot write the log")?);

    let mut said: Vec<String> = Vec::new();
    let mut steps = 0;
    let mut at = String::new();
    let mut next = start + PROGRESS;
    loop {
        match lines.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if let Some(step) = step(&line) {
                    steps += 1;
                    step.clone_into(&mut at);
                } else {
                    said.push(line);
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                println!("  [{}] {steps} steps, now {at}", clock(start.elapsed()));
                next += PROGRESS;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait().context("cannot wait for make")?;
    if !status.success() {
        let errors = errors(&said);
        bail!(
            "the build broke:\n{}\n(all of it: {})",
            errors.join("\n"),
            log.display()
        );
    }
    println!("  [{}] done, {steps} steps", clock(start.elapsed()));
    said.retain(|line| line.contains("warning: ") || line.contains("WARN"));
    Ok(said)
}

/// Copies output to a file, and hands it on by lines.
fn tee(output: impl Read + Send + 'static, mut log: File) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output
            .read_until(b'\n', &mut line)
            .is_ok_and(|read| read > 0)
        {
            let _ = log.write_all(&line);
            let text = String::from_utf8_lossy(&line);
            let _ = sender.send(text.trim_end().to_owned());
            line.clear();
        }
    });
    receiver
}

/// The work that a line of kbuild's announces: `  CC      fs/eventpoll.o`.
fn step(line: &str) -> Option<&str> {
    let step = line.strip_prefix("  ")?;
    step.starts_with(|c: char| c.is_ascii_uppercase())
        .then_some(step)
}

/// What broke, of all that was said besides the steps.
fn errors(said: &[String]) -> Vec<String> {
    const SIGNS: [&str; 7] = [
        "error: ",
        "Error: ",
        "ERROR: ",
        "undefined reference",
        "FAILED",
        "No rule to make",
        "***",
    ];
    let mut errors = Vec::new();
    let mut quoting = false;
    for line in said {
        let sign = SIGNS.iter().any(|sign| line.contains(sign));
        // The source line and the caret below an error.
        quoting = sign || quoting && line.starts_with(' ');
        if quoting {
            errors.push(line.clone());
        }
    }
    if errors.is_empty() {
        let last = said.len().saturating_sub(SHOWN);
        errors = said[last..].to_vec();
    }
    let more = errors.len().saturating_sub(SHOWN);
    errors.truncate(SHOWN);
    if more > 0 {
        errors.push(format!("... and {more} lines more"));
    }
    errors
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{:2}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::{errors, step};

    #[test]
    fn steps_are_told_from_what_is_said() {
        assert_eq!(
            step("  CC      fs/eventpoll.o"),
            Some("CC      fs/eventpoll.o")
        );
        assert_eq!(step("      |          ^~~~"), None);
        assert_eq!(step("make[2]: Entering directory"), None);
    }

    #[test]
    fn of_a_broken_build_only_what_broke() {
        let said = [
            "a.c: In function 'f':",
            "a.c:3:2: error: 'x' undeclared",
            "    3 |  x = 1;",
            "      |  ^",
            "b.c:1:1: note: nothing",
            "make[2]: *** [Makefile:1: a.o] Error 1",
        ];
        let said: Vec<String> = said.map(str::to_owned).into();
        assert_eq!(errors(&said), [&said[1..4], &said[5..]].concat());
    }
}
