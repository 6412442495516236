//! Tells a process from its children without a call of the kernel, which a
//! look at a process's number is.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

use rustix::mm::{madvise, mmap_anonymous, munmap, Advice, MapFlags, ProtFlags};

/// Memory that a child of fork(2) finds to be 0 (MADV_WIPEONFORK, Linux 4.14).
struct Wiped(NonNull<AtomicU64>);

// SAFETY: an atomic, in memory that stays where it is.
unsafe impl Send for Wiped {}
// SAFETY: as above.
unsafe impl Sync for Wiped {}

/// A number that a process has in common with none of its ancestors that have
/// asked for theirs before they had it as a child.
///
/// # Errors
///
/// Those of mmap(2) and madvise(2), until they succeed once.
pub(super) fn generation() -> io::Result<u64> {
    // A child has its parent's, and so goes on from there.
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let cell = cell()?;
    let now = cell.load(Ordering::Relaxed);
    if now != 0 {
        return Ok(now);
    }
    let new = NEXT.fetch_add(1, Ordering::Relaxed);
    let put = cell.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed);
    Ok(put.map_or_else(|others| others, |_| new))
}

fn cell() -> io::Result<&'static AtomicU64> {
    static CELL: OnceLock<Wiped> = OnceLock::new();
    let wiped = match CELL.get() {
        Some(wiped) => wiped,
        None => {
            let new = Wiped::map()?;
            // Another thread may have been faster: then ours goes.
            CELL.get_or_init(|| new)
        }
    };
    // SAFETY: mapped for as long as the process lives, aligned as a page is, and
    // never anything but this atomic.
    Ok(unsafe { wiped.0.as_ref() })
}

const LEN: usize = size_of::<AtomicU64>();

impl Wiped {
    fn map() -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: no address is asked for, so no mapping of ours is replaced.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), LEN, access, MapFlags::PRIVATE) }?;
        let wiped = Self(NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?);
        // SAFETY: our own mapping, whole: its one page.
        unsafe { madvise(start, LEN, Advice::LinuxWipeOnFork) }?;
        Ok(wiped)
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        // SAFETY: the range that was mapped; what is in a static is not dropped, and
        // nobody else was lent it.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), LEN) };
    }
}

#[cfg(test)]
mod tests {
    use super::generation;

    /// What a child of fork(2) makes of it: its exit status.
    fn in_child(body: impl FnOnce() -> u8) -> u8 {
        // SAFETY: the child calls nothing that could wait for another thread.
        match unsafe { libc::fork() } {
            0 => {
                let status = body();
                // SAFETY: ends the child without running what is the parent's.
                unsafe { libc::_exit(status.into()) }
            }
            child => {
                let mut status = 0;
                // SAFETY: waits for the child that was just made.
                assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
                assert!(libc::WIFEXITED(status), "{status:#x}");
                libc::WEXITSTATUS(status) as u8
            }
        }
    }

    #[test]
    fn no_child_has_the_number_of_an_ancestor() {
        let ours = generation().unwrap();
        assert_eq!(generation().unwrap(), ours);
        let differs = in_child(|| {
            let childs = generation().unwrap_or(ours);
            let grandchild = in_child(|| {
                let own = generation().unwrap_or(ours);
                u8::from(own != ours && own != childs)
            });
            u8::from(childs != ours && Ok(childs) == generation().map_err(drop)) + 2 * grandchild
        });
        assert_eq!(differs, 1 + 2);
        assert_eq!(generation().unwrap(), ours);
    }
}
