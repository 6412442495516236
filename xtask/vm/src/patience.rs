//! Time for slow guests. vmtest gives up on a guest whose agent does not answer
//! within two minutes; an emulated debug kernel on a busy machine needs more. The
//! clock starts when QEMU has greeted on its control socket (QMP), and for that
//! vmtest waits without a limit: so the greeting is held back until the guest is
//! about to start its agent, or QEMU has ended.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// What vmtest's init says on the serial line when it starts the agent.
pub(crate) const READY: &str = "vmtest: Spawning qemu-ga";

const TICK: Duration = Duration::from_millis(20);

/// Stands between vmtest and QEMU's control socket.
#[derive(Default)]
pub(crate) struct Patience {
    ready: AtomicBool,
    over: AtomicBool,
}

impl Patience {
    /// Listens to what the guest says.
    pub(crate) fn hear(&self, line: &str) {
        if line.contains(READY) {
            self.ready.store(true, Ordering::Relaxed);
        }
    }

    /// The machine has ended.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Waits for QEMU's end: `alive` in the run's folder is a pipe that it holds open.
    pub(crate) fn watch(&self, run: &Path) -> io::Result<()> {
        let alive = run.join("alive");
        if self.wait_for(|| alive.exists().then_some(())).is_some() {
            io::copy(&mut File::open(alive)?, &mut io::sink())?;
            self.end();
        }
        Ok(())
    }

    /// Serves the socket that vmtest looks for, whose path the starter of QEMU
    /// writes to `qmp-path` in the run's folder; QEMU's own is `qmp` there.
    pub(crate) fn serve(&self, run: &Path) -> io::Result<()> {
        let Some(path) = self.wait_for(|| path_in(&run.join("qmp-path"))) else {
            return Ok(());
        };
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        let Some((mut vmtest, _)) = self.wait_for(|| listener.accept().ok()) else {
            return Ok(());
        };
        vmtest.set_nonblocking(false)?;
        let ready = || self.ready.load(Ordering::Relaxed).then_some(());
        if self.wait_for(ready).is_none() {
            // No greeting, so that vmtest gives up; at the bare end of the
            // stream its library panics.
            return vmtest.write_all(b"QEMU has ended\n");
        }
        let qemu = UnixStream::connect(run.join("qmp"))?;
        let (from_qemu, to_vmtest) = (qemu.try_clone()?, vmtest.try_clone()?);
        thread::scope(|scope| {
            scope.spawn(|| forward(from_qemu, to_vmtest));
            forward(vmtest, qemu);
        });
        Ok(())
    }

    fn wait_for<T>(&self, mut get: impl FnMut() -> Option<T>) -> Option<T> {
        while !self.over.load(Ordering::Relaxed) {
            if let Some(got) = get() {
                return Some(got);
            }
            thread::sleep(TICK);
        }
        None
    }
}

/// The path that is written in a file, once its line is complete.
fn path_in(file: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(file).ok()?;
    text.strip_suffix('\n').map(PathBuf::from)
}

/// Copies until one side closes, and closes the other.
fn forward(mut from: UnixStream, mut to: UnixStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.flush();
    let _ = to.shutdown(Shutdown::Both);
}
