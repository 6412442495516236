//! The registered files of a ring.

use std::path::PathBuf;

use crate::backend::fdinfo;
use crate::error::Result;
use crate::iter::descriptors::{DescriptorReader, Descriptors};
use crate::iter::{UringFileReader, UringIter};
use crate::locator::Locator;
use crate::record::RegisteredFile;
use crate::ring::Ring;

/// The registered files of one ring, including direct descriptors:
/// [`UringIter`] of [`RegisteredFile`], with the backends TaskFile and Native.
///
/// ```no_run
/// use uring_bpf_iter::UringFileIter;
///
/// # fn main() -> uring_bpf_iter::Result<()> {
/// let mut iter = UringFileIter::attach_pid(1234, 7)?;
/// let descriptors = iter.descriptors()?;
/// for slot in iter.snapshot()?.iter() {
///     let Some(file) = slot.file() else { continue };
///     println!("{}: {}, also {:?}", slot.index(), file.kind(), descriptors.of(file));
/// }
/// # Ok(())
/// # }
/// ```
pub type UringFileIter = UringIter<RegisteredFile>;

impl UringFileIter {
    /// The open descriptors of the process that the ring was attached by (the
    /// first holder of a ring that was found), to see which of them are
    /// registered files as well.
    ///
    /// Each call loads a program. To look at several processes, or again, keep a
    /// [`DescriptorReader`].
    ///
    /// # Errors
    ///
    /// As [`DescriptorReader::new`] and [`DescriptorReader::read`].
    pub fn descriptors(&mut self) -> Result<Descriptors> {
        let pid = self.reader.locator().places[0].pid;
        DescriptorReader::new()?.read(pid)
    }

    /// The path of the file in slot `index`, as the kernel prints it for the
    /// caller: `None` for an empty slot, with ` (deleted)` at the end for a file
    /// whose name was removed, `socket:[123]` and the like for a file without a
    /// path.
    ///
    /// Only the Native backend can do this, because bpf_d_path takes only a file
    /// that the kernel trusts. Elsewhere [`Descriptors::path`] works for a file that also
    /// has a descriptor, [`FileIdentity::inner_path`](crate::FileIdentity::inner_path) for
    /// pipes, sockets and the like, and [`UringFileReader::paths`] from Linux 6.18 on.
    ///
    /// The result is about the file that is in the slot now; an earlier record of
    /// the slot may be about another file. Each call walks the table.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`](crate::Error::Unsupported) with another backend, [`Error::Contended`](crate::Error::Contended),
    /// [`Error::RingGone`](crate::Error::RingGone) (ENXIO), [`Error::Os`](crate::Error::Os) with ENAMETOOLONG for a path
    /// of more than 4,095 bytes.
    pub fn path(&mut self, index: u64) -> Result<Option<PathBuf>> {
        self.reader.path(index, &self.retry)
    }
}

impl UringFileReader {
    /// The paths of the registered files of a ring, one for each slot, as the text of
    /// `/proc/PID/fdinfo/FD` of the ring has them: as [`UringFileIter::path`], but for all
    /// slots at once, and also without a native iterator. `None` for an empty slot, and
    /// for a file whose path the kernel does not tell.
    ///
    /// They are read at another moment than a snapshot. A slot whose file is the same
    /// ([`FileIdentity::same_file`](crate::FileIdentity::same_file)) in a snapshot before
    /// and in one after this call has this path, unless it held another file in between.
    ///
    /// It works from Linux 6.18 on, for a ring that has a descriptor in some process, and
    /// takes the rights of the fdinfo backend over that process.
    ///
    /// # Errors
    ///
    /// [`Error::Contended`](crate::Error::Contended), which is retryable, if the kernel
    /// kept leaving out the list because `uring_lock` was taken: then the paths are not
    /// known. [`Error::Unsupported`](crate::Error::Unsupported) before Linux 6.18 and for
    /// a ring without a descriptor, [`Error::NotPermitted`](crate::Error::NotPermitted)
    /// (EACCES), [`Error::RingGone`](crate::Error::RingGone),
    /// [`Error::NoBackend`](crate::Error::NoBackend) if /proc is not that of the caller's
    /// pid namespace.
    pub fn paths(&self, ring: &Ring) -> Result<Vec<Option<PathBuf>>> {
        fdinfo::paths::of_ring(Locator::of_ring(ring), &self.tables.options().retry)
    }
}
