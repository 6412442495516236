//! Memory of a BPF map, seen as plain data.

use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use rustix::mm::{madvise, mmap, munmap, Advice, MapFlags, ProtFlags};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::fork;

/// The values of a `BPF_F_MMAPABLE` array map that lie one after the other.
///
/// The map must belong to the engine alone: not pinned, its programs write only
/// inside calls that take the engine by `&mut`. Then the memory cannot change
/// while a slice is lent. A forked child does not get the mapping, so that it
/// cannot change what its parent has lent: there every call is refused.
pub(crate) struct Shared<T> {
    start: NonNull<T>,
    len: usize,
    /// Of the process that has the mapping.
    generation: u64,
    // `T` is plain data without interior mutability.
    _values: PhantomData<T>,
}

// SAFETY: the mapping is owned by this value and stays where it is when the
// value moves to another thread.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: through `&Shared` the memory is only read, and nobody else writes
// while a `&Shared` exists (see the type's contract).
unsafe impl<T: Sync> Sync for Shared<T> {}

impl<T: FromBytes + IntoBytes + Immutable> Shared<T> {
    /// Maps `len` values of the map. A value size that is not a multiple of 8
    /// would leave gaps between the values and is refused by the assertion.
    pub(crate) fn map(map: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        const { assert!(size_of::<T>() % 8 == 0 && size_of::<T>() > 0) };
        let bytes = Self::bytes(len)?;
        let generation = fork::generation()?;
        // SAFETY: no address is asked for, so no mapping of ours is replaced.
        let start = unsafe {
            mmap(
                ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map,
                0,
            )
        }?;
        let shared = Self {
            start: NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?,
            len,
            generation,
            _values: PhantomData,
        };
        // SAFETY: our own mapping, whole; a child of fork(2) goes without it.
        unsafe { madvise(start, bytes, Advice::LinuxDontFork) }?;
        Ok(shared)
    }

    fn bytes(len: usize) -> io::Result<usize> {
        len.checked_mul(size_of::<T>())
            .filter(|&bytes| bytes > 0 && bytes <= isize::MAX as usize)
            .ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// The first `len` values, `None` if there are fewer.
    pub(crate) fn get(&self, len: usize) -> Option<&[T]> {
        if len > self.len || !self.is_ours() {
            return None;
        }
        // SAFETY: the mapping is page aligned, `self.len` values long and lives
        // as long as `self`; any bytes are a valid `T` (`FromBytes`); no one
        // writes while `&self` is borrowed (see the type's contract).
        Some(unsafe { std::slice::from_raw_parts(self.start.as_ptr(), len) })
    }

    /// A copy of the first value.
    ///
    /// # Errors
    ///
    /// In a child of fork(2).
    pub(crate) fn read(&self) -> io::Result<T> {
        self.refuse_child()?;
        // SAFETY: mapped, aligned and valid as in `get`; volatile, because the
        // kernel wrote it without the compiler's knowledge.
        Ok(unsafe { ptr::read_volatile(self.start.as_ptr()) })
    }

    /// Sets the first value.
    ///
    /// # Errors
    ///
    /// In a child of fork(2).
    pub(crate) fn write(&mut self, value: T) -> io::Result<()> {
        self.refuse_child()?;
        // SAFETY: mapped writable and aligned; `&mut self` excludes readers.
        unsafe { ptr::write_volatile(self.start.as_ptr(), value) };
        Ok(())
    }

    fn refuse_child(&self) -> io::Result<()> {
        match self.is_ours() {
            true => Ok(()),
            false => Err(io::Error::other(
                "it was opened before fork(2), by the parent: open another one here",
            )),
        }
    }
}

impl<T> Shared<T> {
    fn is_ours(&self) -> bool {
        fork::generation().is_ok_and(|now| now == self.generation)
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // In a forked child something else may be there by now.
        if !self.is_ours() {
            return;
        }
        // SAFETY: the range is the one that `map` was given, and every borrow
        // of it has ended. An error would leave it mapped, which is harmless.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len * size_of::<T>()) };
    }
}
