//! Signals of this thread, put off for a while.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;

/// Until it is dropped no signal reaches this thread.
pub(super) struct Blocked {
    before: libc::sigset_t,
    // The mask is the thread's.
    _thread: PhantomData<*const ()>,
}

impl Blocked {
    pub(super) fn new() -> Self {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: fills the set.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        // SAFETY: `all` was filled; `before` has room for the old set.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
        Self {
            // SAFETY: pthread_sigmask with valid arguments cannot fail, so it is set.
            before: unsafe { before.assume_init() },
            _thread: PhantomData,
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: a set that pthread_sigmask has given; the old one is not wanted.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, ptr::null_mut()) };
    }
}
