//! Running other programs. What changes or checks something is shown as a line
//! that could be typed; what only asks a question runs unseen.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Output, Stdio};

use anyhow::{bail, Context as _, Result};

/// A heading of the output.
pub fn heading(title: &str) {
    println!("\n== {title}");
}

/// Shows a command line.
pub fn echo(line: &str) {
    println!("$ {line}");
}

/// A program to run in the workspace root, with nothing on its standard input.
pub struct Cmd {
    command: Command,
    /// Settings in front of the program, as a shell would take them.
    prefix: String,
}

/// A command from its words.
pub fn cmd<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Cmd {
    let mut words = words.into_iter();
    let program = words.next().expect("a command has a first word");
    let mut command = Command::new(program.as_ref());
    command.args(words).stdin(Stdio::null());
    Cmd {
        command,
        prefix: String::new(),
    }
}

/// A command from a line whose words hold no spaces.
pub fn line(line: &str) -> Cmd {
    cmd(line.split_whitespace())
}

impl Cmd {
    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Adds another command's words: what this one is to start.
    pub fn then(self, other: &Cmd) -> Self {
        let program = other.command.get_program().to_owned();
        self.arg(program).args(other.command.get_args())
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        let value = value.as_ref();
        let _ = write!(self.prefix, "{name}={} ", quote(value));
        self.command.env(name, value);
        self
    }

    /// Replaces PATH, which is too long to show.
    pub fn with_path(mut self, path: &OsStr) -> Self {
        self.command.env("PATH", path);
        self
    }

    /// Runs in another folder.
    pub fn dir(mut self, dir: &std::path::Path) -> Self {
        self.prefix = format!("cd {} && {}", quote(dir.as_os_str()), self.prefix);
        self.command.current_dir(dir);
        self
    }

    /// The command as a line for a shell.
    pub fn shown(&self) -> String {
        let mut line = self.prefix.clone() + &quote(self.command.get_program());
        for arg in self.command.get_args() {
            line.push(' ');
            line.push_str(&quote(arg));
        }
        line
    }

    /// Shows the command, runs it, and wants it to succeed.
    pub fn run(self) -> Result<()> {
        echo(&self.shown());
        self.end_with(0)
    }

    /// The same, with everything that is shown in a file; wants this exit status.
    pub fn run_into(mut self, mut log: &File, status: i32) -> Result<()> {
        let cannot = "cannot write the log";
        writeln!(log, "$ {}", self.shown()).context(cannot)?;
        self.command.stdout(log.try_clone().context(cannot)?);
        self.command.stderr(log.try_clone().context(cannot)?);
        self.end_with(status)
    }

    fn end_with(mut self, wanted: i32) -> Result<()> {
        let shown = self.shown();
        let status = self.command.status();
        let status = status.with_context(|| format!("cannot start `{shown}`"))?;
        match (status.code(), wanted) {
            (Some(code), _) if code == wanted => Ok(()),
            (_, 0) => bail!("`{shown}`: {status}"),
            _ => bail!("`{shown}`: {status}, and {wanted} is right"),
        }
    }

    /// Runs it, shows what it prints, and gives the last line of that.
    pub fn last_line(mut self) -> Result<String> {
        let shown = self.shown();
        let cannot = || format!("cannot run `{shown}`");
        self.command.stdout(Stdio::piped());
        let mut child = self.command.spawn().with_context(cannot)?;
        let output = child.stdout.take().with_context(cannot)?;
        let mut last = None;
        for line in BufReader::new(output).lines() {
            let line = line.with_context(cannot)?;
            println!("{line}");
            last = Some(line);
        }
        let status = child.wait().with_context(cannot)?;
        if !status.success() {
            bail!("`{shown}`: {status}");
        }
        last.with_context(|| format!("`{shown}` printed nothing"))
    }

    /// What the command prints on its standard output, without showing anything.
    pub fn read(self) -> Result<String> {
        let shown = self.shown();
        let output = self.output()?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("`{shown}`: {}\n{}", output.status, stderr.trim_end());
        }
        String::from_utf8(output.stdout).with_context(|| format!("`{shown}` printed no UTF-8"))
    }

    /// Runs it without showing anything, whatever its end.
    pub fn output(mut self) -> Result<Output> {
        let shown = self.shown();
        let output = self.command.output();
        output.with_context(|| format!("cannot start `{shown}`"))
    }

    /// The same with standard error in standard output, in the order it was written.
    pub fn merged(self) -> Self {
        let mut merged = cmd(["sh", "-c", r#"exec "$@" 2>&1"#, "sh"]);
        merged.command.arg(self.command.get_program());
        merged.command.args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => merged.command.env(name, value),
                None => merged.command.env_remove(name),
            };
        }
        if let Some(dir) = self.command.get_current_dir() {
            merged.command.current_dir(dir);
        }
        merged.prefix = self.prefix;
        merged
    }

    /// Whether the command is there and succeeds, without showing anything.
    pub fn succeeds(mut self) -> bool {
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        self.command.status().is_ok_and(|status| status.success())
    }
}

impl From<Cmd> for Command {
    fn from(cmd: Cmd) -> Self {
        cmd.command
    }
}

/// A word as a shell takes it.
fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./,:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::{cmd, line};

    #[test]
    fn the_last_line_of_what_is_printed_is_an_answer() {
        let said = |script: &str| line("sh -c").arg(script).last_line();
        assert_eq!(said("echo a; echo b c").unwrap(), "b c");
        assert!(said("echo a; exit 3").is_err());
        assert!(said("true").is_err());
    }

    #[test]
    fn a_command_may_start_another() {
        let inner = cmd(["echo", "a b"]);
        assert_eq!(
            line("nice -n 1").then(&inner).shown(),
            "nice -n 1 echo 'a b'"
        );
    }

    #[test]
    fn a_shown_command_can_be_typed() {
        let shown = cmd(["cargo", "doc", "it's"])
            .env("RUSTDOCFLAGS", "-D warnings")
            .dir("/a b".as_ref())
            .shown();
        assert_eq!(
            shown,
            r"cd '/a b' && RUSTDOCFLAGS='-D warnings' cargo doc 'it'\''s'"
        );
    }
}
