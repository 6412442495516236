//! Who asks the kernel, and how it is chosen.
//!
//! A backend is the only part that knows how the kernel was asked; what it
//! gives are records.

#[cfg(feature = "bpf")]
pub(crate) mod btf;
pub(crate) mod fdinfo;
#[cfg(feature = "bpf")]
pub(crate) mod files;
#[cfg(feature = "bpf")]
pub(crate) mod locked;
#[cfg(feature = "bpf")]
pub(crate) mod maps;
#[cfg(feature = "bpf")]
pub(crate) mod native;
#[cfg(feature = "bpf")]
pub(crate) mod program;
pub(crate) mod select;
#[cfg(feature = "bpf")]
pub(crate) mod task_file;

use crate::error::{Contention, Result};
use crate::locator::Name;
use crate::record::Consistency;

/// Reads a table from text, again and again. Not public: see [`Record`].
///
/// [`Record`]: crate::Record
pub trait ReadText<R>: Send + Sync {
    /// The ring or the epoll set, for messages.
    fn name(&self) -> Name;

    /// Reads once, or says what was in the way.
    fn read(&mut self) -> Result<Result<Consistency, Contention>>;

    /// What was read last.
    fn records(&self) -> &[R];
}
