//! drgn, which reads the kernel's memory by its debug information: `bufs_by_drgn.py`, one
//! process for all looks. What it takes is set up by `cargo xtask bench`.

use std::cell::RefCell;
use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;

use crate::bench::Result;

/// The Python that has drgn, and the kernel with its debug information.
const SETTINGS: [&str; 2] = ["URING_BENCH_DRGN_PYTHON", "URING_BENCH_VMLINUX"];

/// The process; ended with it.
#[derive(Clone)]
pub(crate) struct Drgn(Rc<RefCell<Process>>);

struct Process {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Drgn {
    /// Starts it, and says what it is.
    pub(crate) fn start() -> Result<(Self, String)> {
        let [python, vmlinux] = SETTINGS.map(env::var_os);
        let (Some(python), Some(vmlinux)) = (python, vmlinux) else {
            let [python, vmlinux] = SETTINGS;
            let why = "`cargo xtask bench` sets up what it takes, for its virtual machine";
            return Err(format!("{why} ({python}, {vmlinux})").into());
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/bufs_by_drgn.py");
        let mut child = Command::new(python)
            .arg(script)
            .arg(vmlinux)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let to = child.stdin.take().ok_or("no pipe to it")?;
        let from = BufReader::new(child.stdout.take().ok_or("no pipe from it")?);
        let mut process = Process { child, to, from };
        let version = process.line()?;
        Ok((Self(Rc::new(RefCell::new(process))), version))
    }

    /// Address and length of all buffers of a ring of this process.
    pub(crate) fn list(&self, fd: i32) -> Result<Vec<(u64, u64)>> {
        let line = self.0.borrow_mut().ask("list", fd)?;
        line.split(',')
            .map(|range| {
                let (addr, len) = range.split_once(' ').ok_or("no address and length")?;
                Ok((addr.parse()?, len.parse()?))
            })
            .collect()
    }

    /// The sum of their addresses.
    pub(crate) fn sum(&self, fd: i32) -> Result<u64> {
        Ok(self.0.borrow_mut().ask("sum", fd)?.parse()?)
    }
}

impl Process {
    fn ask(&mut self, what: &str, fd: i32) -> Result<String> {
        writeln!(self.to, "{what} {} {fd}", std::process::id())?;
        self.line()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            // What broke it was written to the standard error, by itself.
            return Err("it ended without an answer".into());
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already, or waits for a line.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
