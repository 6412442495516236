//! How flags are printed.

use std::fmt;

use bitflags::Flags;

/// The names of the bits that are set, joined by `|`, and a hexadecimal number
/// for those that have no name.
pub(crate) fn write<F>(flags: &F, f: &mut impl fmt::Write) -> fmt::Result
where
    F: Flags,
    F::Bits: fmt::LowerHex,
{
    let mut names = flags.iter_names();
    let mut separator = "";
    for (name, _) in names.by_ref() {
        write!(f, "{separator}{name}")?;
        separator = "|";
    }
    match names.remaining() {
        rest if rest.is_empty() => Ok(()),
        rest => write!(f, "{separator}{:#x}", rest.bits()),
    }
}
