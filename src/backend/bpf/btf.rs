//! The names of the kernel's types and functions, without the rest of them: to
//! read all of its BTF takes longer than to load a program.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, PoisonError};

use memchr::memmem;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::choice::BTF;

/// `struct btf_header`, include/uapi/linux/btf.h.
#[derive(Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Header {
    magic: u16,
    version: u8,
    flags: u8,
    len: u32,
    type_off: u32,
    type_len: u32,
    str_off: u32,
    str_len: u32,
}

const MAGIC: u16 = 0xeb9f;
/// No kernel has as much: that of a distribution has two or three million.
const MOST: u32 = 1 << 28;

/// Whether the kernel has an iterator target of this name. (Its function has a
/// name that nothing else has: DEFINE_BPF_ITER_FUNC, include/linux/bpf.h.)
pub(crate) fn has_target(name: &'static CStr) -> io::Result<bool> {
    static KNOWN: Mutex<Vec<(&CStr, bool)>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, answer)) = known.iter().find(|(of, _)| *of == name) {
        return Ok(*answer);
    }
    let names = names(&File::open(BTF)?)?;
    let wanted = [b"\0bpf_iter_", name.to_bytes_with_nul()].concat();
    let answer = memmem::find(&names, &wanted).is_some();
    known.push((name, answer));
    Ok(answer)
}

/// All names, each with a NUL in front of it and one behind.
fn names(btf: &File) -> io::Result<Vec<u8>> {
    let mut header = Header::default();
    btf.read_exact_at(header.as_mut_bytes(), 0)?;
    if header.magic != MAGIC || header.str_len > MOST {
        let what = format!("{BTF}: not BTF: magic {:#x}", header.magic);
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let mut names = vec![0; header.str_len as usize];
    btf.read_exact_at(
        &mut names,
        u64::from(header.len) + u64::from(header.str_off),
    )?;
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;

    use rustix::fs::MemfdFlags;
    use zerocopy::IntoBytes as _;

    use super::{has_target, names, Header, MAGIC};

    #[test]
    fn targets_that_every_kernel_has_and_one_that_none_has() {
        assert!(has_target(c"task_file").unwrap());
        assert!(!has_target(c"task_fil").unwrap());
        assert!(!has_target(c"ask_file").unwrap());
    }

    #[test]
    fn what_is_not_btf_is_an_error() {
        let file = |header: Header, names: &[u8]| {
            let memory = rustix::fs::memfd_create(c"btf", MemfdFlags::empty());
            let mut file = File::from(memory.unwrap());
            file.write_all(header.as_bytes()).unwrap();
            file.write_all(names).unwrap();
            file
        };
        let header = || Header {
            magic: MAGIC,
            len: 24,
            str_len: 5,
            ..Header::default()
        };
        assert_eq!(names(&file(header(), b"\0one\0")).unwrap(), b"\0one\0");
        let cut = names(&file(header(), b"\0one")).unwrap_err();
        assert_eq!(cut.kind(), std::io::ErrorKind::UnexpectedEof);
        let magic = Header {
            magic: 7,
            ..header()
        };
        assert!(names(&file(magic, b"\0one\0"))
            .unwrap_err()
            .to_string()
            .contains("not BTF"));
        let long = Header {
            str_len: u32::MAX,
            ..header()
        };
        assert!(names(&file(long, b"\0one\0")).is_err());
    }
}
