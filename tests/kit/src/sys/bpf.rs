//! bpf(2), as far as iterators need it. What is asked for is the caller's, also
//! when it is wrong on purpose.

use std::ffi::{c_void, CString};
use std::io;
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::check;

const MAP_LOOKUP_ELEM: u32 = 1;
const MAP_UPDATE_ELEM: u32 = 2;
const PROG_LOAD: u32 = 5;
const OBJ_PIN: u32 = 6;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const LINK_CREATE: u32 = 28;
const LINK_UPDATE: u32 = 29;
const ENABLE_STATS: u32 = 32;
const ITER_CREATE: u32 = 33;
const PROG_TYPE_TRACING: u32 = 26;
const TRACE_ITER: u32 = 28;
const PROG_SLEEPABLE: u32 = 1 << 4;

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Insn {
    pub(crate) code: u8,
    /// Destination in the lower four bits, source above.
    pub(crate) regs: u8,
    pub(crate) off: i16,
    pub(crate) imm: i32,
}

/// `union bpf_attr` for BPF_PROG_LOAD, up to attach_btf_id.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

/// The same for BPF_LINK_CREATE of an iterator.
#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    pad: u32,
}

/// The same for BPF_LINK_UPDATE.
#[repr(C)]
#[derive(Default)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// The same for BPF_ITER_CREATE.
#[repr(C)]
#[derive(Default)]
struct IterCreate {
    link_fd: u32,
    flags: u32,
}

/// The same for BPF_OBJ_PIN.
#[repr(C)]
struct ObjPin {
    path: u64,
    fd: u32,
    file_flags: u32,
}

/// The same for BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
#[derive(Default)]
struct GetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// `struct bpf_link_info` of an iterator link, its second union as two numbers.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LinkInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) prog_id: u32,
    pub(crate) pad: u32,
    pub(crate) target_name: u64,
    pub(crate) target_name_len: u32,
    /// The first union: 32-bit members.
    pub(crate) map_id: u32,
    /// The second union: `inode`, and for epoll `ep_id`.
    pub(crate) words: [u64; 2],
    rest: [u64; 8],
}

const _: () = {
    assert!(size_of::<Insn>() == 8);
    assert!(std::mem::offset_of!(ProgLoad, attach_btf_id) == 108);
    assert!(std::mem::offset_of!(LinkInfo, words) == 32);
};

/// bpf(2).
///
/// # Safety
/// `attr` must be what `cmd` takes; all that it points to must be valid for it.
unsafe fn bpf<T>(cmd: u32, attr: &mut T) -> io::Result<usize> {
    let (attr, size) = (std::ptr::from_mut(attr), size_of::<T>());
    // SAFETY: passed on to the caller; the kernel reads `size` bytes of `attr`.
    check(unsafe { libc::syscall(libc::SYS_bpf, cmd, attr, size) })
}

fn owned(fd: usize) -> OwnedFd {
    // SAFETY: bpf(2) just returned it: open, and owned by nobody else.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// Loads an iterator program for the function with this BTF id of the kernel; a
/// sleepable one may be interrupted to fetch memory of a user's. With an error
/// goes what the verifier has said.
pub(crate) fn prog_load(
    insns: &[Insn],
    attach_btf_id: u32,
    sleepable: bool,
) -> io::Result<OwnedFd> {
    let mut log = vec![0_u8; 64 * 1024];
    let mut attr = ProgLoad {
        prog_type: PROG_TYPE_TRACING,
        insn_cnt: insns.len() as u32,
        insns: insns.as_ptr() as u64,
        // bpf_seq_write() is for such programs only.
        license: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_size: log.len() as u32,
        log_buf: log.as_mut_ptr() as u64,
        prog_flags: if sleepable { PROG_SLEEPABLE } else { 0 },
        expected_attach_type: TRACE_ITER,
        attach_btf_id,
        ..ProgLoad::default()
    };
    // The verifier gives up (EAGAIN) if the thread has something to attend to, as it
    // has when a ring goes that it has used (io_ring_exit_work(), io_uring/io_uring.c).
    let fd = loop {
        // SAFETY: ProgLoad, with the instructions, a C string and a buffer for the
        // log, all of the lengths given and alive for the call.
        match unsafe { bpf(PROG_LOAD, &mut attr) } {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            fd => break fd,
        }
    };
    let with_log = |e: io::Error| {
        let end = log.iter().position(|c| *c == 0).unwrap_or(log.len());
        let text = format!("{e}: {}", String::from_utf8_lossy(&log[..end]));
        io::Error::new(e.kind(), text)
    };
    fd.map(owned).map_err(with_log)
}

/// BPF_LINK_CREATE of an iterator with this link info. Pointer and length do
/// not fit where `len` says so.
pub(crate) fn link_create(
    prog: BorrowedFd<'_>,
    info: Option<&[u8]>,
    len: Option<u32>,
) -> io::Result<OwnedFd> {
    let given = info.map_or(0, size_of_val) as u32;
    let len = len.unwrap_or(given);
    assert!(
        info.is_none() || len <= given,
        "the kernel would read beyond the link info"
    );
    let mut attr = LinkCreate {
        prog_fd: prog.as_raw_fd() as u32,
        attach_type: TRACE_ITER,
        iter_info: info.map_or(0, |info| info.as_ptr() as u64),
        iter_info_len: len,
        ..LinkCreate::default()
    };
    // SAFETY: LinkCreate, with no link info, or one of at least that length; the
    // kernel only reads it.
    unsafe { bpf(LINK_CREATE, &mut attr) }.map(owned)
}

/// BPF_LINK_UPDATE: another program for a link.
pub(crate) fn link_update(link: BorrowedFd<'_>, prog: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdate {
        link_fd: link.as_raw_fd() as u32,
        new_prog_fd: prog.as_raw_fd() as u32,
        ..LinkUpdate::default()
    };
    // SAFETY: LinkUpdate holds no address.
    unsafe { bpf(LINK_UPDATE, &mut attr) }.map(drop)
}

/// BPF_MAP_CREATE of an array of one number.
pub fn bpf_map() -> io::Result<OwnedFd> {
    const MAP_CREATE: u32 = 0;
    const ARRAY: u32 = 2;
    // Type, sizes of key and value, number of entries; and what this leaves at 0.
    let mut attr = [ARRAY, 4, 8, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: the start of union bpf_attr, which holds no address.
    unsafe { bpf(MAP_CREATE, &mut attr) }.map(owned)
}

/// The same for BPF_MAP_LOOKUP_ELEM and BPF_MAP_UPDATE_ELEM.
#[repr(C)]
struct MapElem {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `struct bpf_map_info`, up to the name.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct MapInfo {
    kind: u32,
    id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    flags: u32,
    name: [u8; 16],
}

impl MapInfo {
    /// As far as the kernel keeps it: 15 bytes.
    pub(crate) fn name(&self) -> &[u8] {
        let end = self.name.iter().position(|c| *c == 0).unwrap_or(16);
        &self.name[..end]
    }
}

/// BPF_OBJ_GET_INFO_BY_FD of a map.
pub(crate) fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut info = MapInfo::default();
    let mut attr = GetInfo {
        bpf_fd: map.as_raw_fd() as u32,
        info_len: size_of::<MapInfo>() as u32,
        info: (&raw mut info).cast::<c_void>() as u64,
    };
    // SAFETY: GetInfo, with the address of a MapInfo of the size given, which the
    // kernel fills as far as it goes.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info)
}

/// The size of the values of an array.
///
/// # Errors
/// `InvalidInput` for a map of another kind.
fn array_value(map: BorrowedFd<'_>) -> io::Result<usize> {
    const ARRAY: u32 = 2;
    let info = map_info(map)?;
    if info.kind != ARRAY || info.key_size != 4 {
        return Err(crate::buf::invalid("not a BPF array"));
    }
    Ok(info.value_size as usize)
}

/// BPF_MAP_LOOKUP_ELEM of an array.
pub(crate) fn array_read(map: BorrowedFd<'_>, key: u32) -> io::Result<Vec<u8>> {
    let mut value = vec![0; array_value(map)?];
    let mut attr = MapElem {
        map_fd: map.as_raw_fd() as u32,
        pad: 0,
        key: (&raw const key) as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: MapElem, with a key of four bytes and room for one value of this map.
    unsafe { bpf(MAP_LOOKUP_ELEM, &mut attr) }?;
    Ok(value)
}

/// BPF_MAP_UPDATE_ELEM of an array: zeroes.
pub(crate) fn array_clear(map: BorrowedFd<'_>, key: u32) -> io::Result<()> {
    let value = vec![0_u8; array_value(map)?];
    let mut attr = MapElem {
        map_fd: map.as_raw_fd() as u32,
        pad: 0,
        key: (&raw const key) as u64,
        value: value.as_ptr() as u64,
        flags: 0,
    };
    // SAFETY: MapElem, with a key of four bytes and one value of this map.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) }.map(drop)
}

/// BPF_ITER_CREATE.
pub(crate) fn iter_create(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = IterCreate {
        link_fd: link.as_raw_fd() as u32,
        flags: 0,
    };
    // SAFETY: IterCreate holds no address.
    unsafe { bpf(ITER_CREATE, &mut attr) }.map(owned)
}

/// BPF_OBJ_PIN.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    let path = CString::new(path)?;
    let mut attr = ObjPin {
        path: path.as_ptr() as u64,
        fd: object.as_raw_fd() as u32,
        file_flags: 0,
    };
    // SAFETY: ObjPin, with a C string that is alive for the call.
    unsafe { bpf(OBJ_PIN, &mut attr) }.map(drop)
}

/// BPF_OBJ_GET_INFO_BY_FD of an iterator link, and the name of its target.
pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<(LinkInfo, String)> {
    let mut name = [0_u8; 64];
    let mut info = LinkInfo {
        target_name: name.as_mut_ptr() as u64,
        target_name_len: name.len() as u32,
        ..LinkInfo::default()
    };
    let mut attr = GetInfo {
        bpf_fd: link.as_raw_fd() as u32,
        info_len: size_of::<LinkInfo>() as u32,
        info: (&raw mut info).cast::<c_void>() as u64,
    };
    // SAFETY: GetInfo, with the address of a LinkInfo of the size given, in which
    // is that of a buffer for the name, with its length.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    let end = name.iter().position(|c| *c == 0).unwrap_or(name.len());
    Ok((info, String::from_utf8_lossy(&name[..end]).into_owned()))
}

/// The beginning of `struct bpf_prog_info`, up to its name.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    prog_type: u32,
    id: u32,
    before_name: [u64; 7],
    name: [u8; 16],
}

/// BPF_ENABLE_STATS of runs: counted until the descriptor is closed.
pub(crate) fn enable_stats() -> io::Result<OwnedFd> {
    const RUN_TIME: u32 = 0;
    let mut kind = RUN_TIME;
    // SAFETY: the one number that it takes.
    unsafe { bpf(ENABLE_STATS, &mut kind) }.map(owned)
}

/// BPF_OBJ_GET_INFO_BY_FD of a program, by the number of a descriptor that other
/// threads may close: its name.
pub(crate) fn prog_name(program: RawFd) -> io::Result<String> {
    let mut info = ProgInfo::default();
    let mut attr = GetInfo {
        bpf_fd: program as u32,
        info_len: size_of::<ProgInfo>() as u32,
        info: (&raw mut info).cast::<c_void>() as u64,
    };
    // SAFETY: GetInfo, with the address of a ProgInfo of the size given.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    let end = info.name.iter().position(|c| *c == 0).unwrap_or(16);
    Ok(String::from_utf8_lossy(&info.name[..end]).into_owned())
}
