//! The kernel's own types, as far as the kit asks: which iterator targets there
//! are, and the number by which a program names one.

use std::fs;
use std::io;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const KIND_FUNC: u32 = 12;

/// The BTF id of a function of the kernel, `None` if it has none of that name.
///
/// # Errors
/// ENOENT on a kernel without BTF; `InvalidData`.
pub(crate) fn function(name: &str) -> io::Result<Option<u32>> {
    let data = fs::read(VMLINUX)?;
    let bad = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{VMLINUX} makes no sense"),
        )
    };
    find(&data, name).ok_or_else(bad)
}

/// `None` if the data is not BTF.
fn find(data: &[u8], name: &str) -> Option<Option<u32>> {
    let word = |data: &[u8], at: usize| -> Option<u32> {
        Some(u32::from_ne_bytes(data.get(at..at + 4)?.try_into().ok()?))
    };
    let part = |offset: usize| -> Option<&[u8]> {
        let start = word(data, 4)? as usize + word(data, offset)? as usize;
        data.get(start..start + word(data, offset + 4)? as usize)
    };
    if data.get(..2)? != 0xeb9f_u16.to_ne_bytes() {
        return None;
    }
    let (types, strings) = (part(8)?, part(16)?);
    let wanted = [name.as_bytes(), &[0]].concat();
    let (mut at, mut id) = (0, 1);
    while at < types.len() {
        let (name_at, info) = (word(types, at)? as usize, word(types, at + 4)?);
        let kind = info >> 24 & 0x1f;
        if kind == KIND_FUNC && strings.get(name_at..)?.starts_with(&wanted) {
            return Some(Some(id));
        }
        at += 12 + extra(kind, (info & 0xffff) as usize)?;
        id += 1;
    }
    Some(None)
}

/// Bytes that follow the common part of a type (Documentation/bpf/btf.rst).
fn extra(kind: u32, members: usize) -> Option<usize> {
    match kind {
        2 | 7..=12 | 16 | 18 => Some(0),
        1 | 14 | 17 => Some(4),
        3 => Some(12),
        6 | 13 => Some(8 * members),
        4 | 5 | 15 | 19 => Some(12 * members),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{find, function};

    #[test]
    fn a_target_of_every_kernel() {
        assert!(function("bpf_iter_task_file").unwrap().is_some());
        assert_eq!(function("bpf_iter_no_such_thing").unwrap(), None);
        // A prefix is another name.
        assert_eq!(function("bpf_iter_task_fil").unwrap(), None);
    }

    #[test]
    fn what_is_no_btf() {
        assert_eq!(find(b"", "x"), None);
        assert_eq!(find(&[0x9f, 0xeb, 1, 0, 24, 0, 0, 0], "x"), None);
    }
}
