//! [`LockHolder`]: keeps the lock of a ring or an epoll set taken for as long as
//! wanted.
//!
//! io_uring_register(2) takes `ctx->uring_lock` before it copies its argument
//! (io_uring/register.c, 5.1 to 6.18). The argument of the holder's
//! IORING_REGISTER_PROBE lies in a page that a userfaultfd guards and nobody
//! fills in: the copy sleeps, and the lock stays taken. PROBE reads nothing
//! from the ring and changes nothing in it.
//!
//! epoll_wait(2) holds `ep->mtx` while it copies events out (ep_send_events(),
//! fs/eventpoll.c), here to such a page.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::sys::{self, page_size, Mapping};
use crate::uapi;

/// Holds uring_lock of one ring from [`hold`](Self::hold), or `ep->mtx` of one
/// epoll set from [`hold_epoll`](Self::hold_epoll), to
/// [`release`](Self::release) or drop.
///
/// Whoever wants the lock meanwhile sleeps in state D, deaf even to SIGKILL;
/// but the holder itself can be killed, so that a killed process leaves no
/// lock behind.
#[derive(Debug)]
pub struct LockHolder {
    uffd: Option<File>,
    page: Arc<Mapping>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl LockHolder {
    /// Takes the lock, and returns when it is held: the kernel has reported
    /// that the registering thread waits for the page.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_PTRACE (or vm.unprivileged_userfaultfd); EEXIST
    /// for a ring whose single issuer is another thread; `TimedOut` if someone
    /// else holds the lock.
    pub fn hold(ring: impl AsFd) -> io::Result<Self> {
        Self::hold_by(ring, |ring, page| sys::probe(ring.into(), page, 1))
    }

    /// The same for an epoll set, in which something has to be ready: an event
    /// of it is consumed.
    ///
    /// # Errors
    /// As [`hold`](Self::hold), but for EEXIST.
    pub fn hold_epoll(set: impl AsFd) -> io::Result<Self> {
        Self::hold_by(set, sys::epoll_wait_into)
    }

    /// By a call that uses the page with the lock held.
    fn hold_by(
        fd: impl AsFd,
        call: impl FnOnce(BorrowedFd<'_>, &Mapping) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let page = Arc::new(Mapping::anonymous(page_size())?);
        let uffd = sys::userfaultfd()?;
        sys::uffd_range(&uffd, uapi::UFFDIO_REGISTER, &page)?;
        // A duplicate: the ring may be closed while it is held.
        let fd = fd.as_fd().try_clone_to_owned()?;
        let arg = Arc::clone(&page);
        let body = move || call(fd.as_fd(), &arg);
        let thread = thread::Builder::new()
            .name("lock-holder".into())
            .spawn(body)?;

        // From here on, every way out releases the thread (drop).
        let mut holder = Self {
            uffd: Some(uffd),
            page,
            thread: Some(thread),
        };
        for _ in 0..500 {
            if holder.faulted(Duration::from_millis(10))? {
                return Ok(holder);
            }
            if holder.thread.as_ref().is_some_and(JoinHandle::is_finished) {
                holder.finish()?;
                let text = "the kernel answered without a look at the page";
                return Err(io::Error::other(text));
            }
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the lock could not be taken in 5 s",
        ))
    }

    /// Lets go, and returns when the registering thread is out of the kernel.
    ///
    /// # Errors
    /// What io_uring_register(2) said: none are expected.
    pub fn release(mut self) -> io::Result<()> {
        self.finish()
    }

    /// Whether the kernel has reported the fault of the registering thread.
    fn faulted(&mut self, timeout: Duration) -> io::Result<bool> {
        let Some(uffd) = self.uffd.as_mut() else {
            return Ok(false);
        };
        if !sys::readable(uffd, timeout)? {
            return Ok(false);
        }
        let mut msg = [0; uapi::UFFD_MSG_LEN];
        uffd.read_exact(&mut msg)?;
        Ok(msg[0] == uapi::UFFD_EVENT_PAGEFAULT)
    }

    fn finish(&mut self) -> io::Result<()> {
        if let Some(uffd) = self.uffd.take() {
            // Either act wakes the thread: the page of zeroes (a valid probe),
            // or closing the userfaultfd, after which the fault is an ordinary
            // one. The second cannot fail.
            let _closing_does_it_too = sys::uffd_range(&uffd, uapi::UFFDIO_ZEROPAGE, &self.page);
        }
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        let panicked = |_| Err(io::Error::other("the holder panicked"));
        thread.join().unwrap_or_else(panicked)
    }
}

impl Drop for LockHolder {
    fn drop(&mut self) {
        let _nobody_asked = self.finish();
    }
}
