//! The registered files of a ring.

use std::path::PathBuf;

use crate::error::Result;
use crate::iter::descriptors::{DescriptorReader, Descriptors};
use crate::iter::UringIter;
use crate::record::RegisteredFile;

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
    /// that the kernel trusts. With TaskFile, [`Descriptors::path`] works for a
    /// file that also has a descriptor.
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
