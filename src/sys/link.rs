//! Links of BPF programs, and iterators of links.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use libbpf_sys as libbpf;

use super::ret::{check, check_fd};
use crate::tasks::Tasks;

/// `union bpf_iter_link_info`, include/uapi/linux/bpf.h, with the `task`
/// member (6.1): 0 for both means every task.
#[repr(C)]
#[derive(Clone, Copy)]
struct TaskLinkInfo {
    tid: u32,
    pid: u32,
    pid_fd: u32,
    unused: u32,
}

/// Attaches an iterator program to tasks.
pub(crate) fn link_tasks(program: BorrowedFd<'_>, tasks: Tasks) -> io::Result<OwnedFd> {
    let (pid, tid) = match tasks {
        Tasks::All => (0, 0),
        Tasks::Process(pid) => (pid, 0),
        Tasks::Thread(tid) => (0, tid),
    };
    let mut info = TaskLinkInfo {
        tid,
        pid,
        pid_fd: 0,
        unused: 0,
    };
    let opts = libbpf::bpf_link_create_opts {
        sz: size_of::<libbpf::bpf_link_create_opts>() as u64,
        iter_info: ptr::from_mut(&mut info).cast(),
        iter_info_len: size_of::<TaskLinkInfo>() as u32,
        ..Default::default()
    };
    // SAFETY: `opts` says its size and points to `info`, whose size it also
    // says; both outlive the call, and the kernel only reads them.
    check_fd(unsafe {
        libbpf::bpf_link_create(program.as_raw_fd(), 0, libbpf::BPF_TRACE_ITER, &opts)
    })
}

/// Attaches a native iterator program to the object behind a descriptor.
/// `io_uring.io_uring_fd` and `epoll.epoll_fd` of `union bpf_iter_link_info`
/// (kernel/, not upstream) lie at the same place; the rest is zero.
pub(crate) fn link_fd(program: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // Descriptor 0 would mean that nothing was filled in.
    let copy;
    let mut info = match fd.as_raw_fd() {
        0 => {
            copy = rustix::io::fcntl_dupfd_cloexec(fd, 1)?;
            copy.as_raw_fd()
        }
        raw => raw,
    };
    let opts = libbpf::bpf_link_create_opts {
        sz: size_of::<libbpf::bpf_link_create_opts>() as u64,
        iter_info: ptr::from_mut(&mut info).cast(),
        iter_info_len: size_of_val(&info) as u32,
        ..Default::default()
    };
    // SAFETY: `opts` says its size and points to `info`, whose size it also
    // says; both outlive the call, and the kernel only reads them.
    check_fd(unsafe {
        libbpf::bpf_link_create(program.as_raw_fd(), 0, libbpf::BPF_TRACE_ITER, &opts)
    })
}

/// Gives a link a name in a BPF file system.
pub(crate) fn pin(link: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    // SAFETY: a terminated string and a plain descriptor argument.
    check(unsafe { libbpf::bpf_obj_pin(link.as_raw_fd(), path.as_ptr()) })?;
    Ok(())
}

/// The object of this name in a BPF file system.
pub(crate) fn open_pinned(path: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: a terminated string.
    check_fd(unsafe { libbpf::bpf_obj_get(path.as_ptr()) })
}

/// `struct bpf_link_info`, include/uapi/linux/bpf.h, as the kernel fills it in
/// for an iterator; `inode` and `ep_id` are of the patches in kernel/.
#[repr(C)]
#[derive(Default)]
struct IterInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    pad: u32,
    target_name: u64,
    target_name_len: u32,
    map_id: u32,
    inode: u64,
    ep_id: u64,
    /// Room for what other kernels add.
    rest: [u64; 4],
}

/// The facts that the kernel gives about a link of an iterator.
pub(crate) struct LinkFacts {
    pub(crate) id: u32,
    pub(crate) target: String,
    pub(crate) inode: u64,
    pub(crate) ep_id: u64,
}

/// Asks a link what it is; `None` for one that is of no iterator.
///
/// # Errors
///
/// EINVAL, among others, for a descriptor of something else.
pub(crate) fn link_facts(link: BorrowedFd<'_>) -> io::Result<Option<LinkFacts>> {
    let mut info = IterInfo::default();
    ask_info(link, &mut info)?;
    // Other kinds take the bytes of the name for something else: that of
    // kprobe_multi, for room for 64 addresses. So they are not asked for it.
    if info.kind != libbpf::BPF_LINK_TYPE_ITER {
        return Ok(None);
    }
    let mut name = [0u8; 64];
    info.target_name = name.as_mut_ptr() as u64;
    info.target_name_len = name.len() as u32;
    ask_info(link, &mut info)?;
    // The compiler did not see the kernel write.
    let name = std::hint::black_box(&name);
    let target = CStr::from_bytes_until_nul(name).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(Some(LinkFacts {
        id: info.id,
        target: target.to_string_lossy().into_owned(),
        inode: info.inode,
        ep_id: info.ep_id,
    }))
}

/// Names no buffer but that of an iterator's name, and only to such a link.
fn ask_info(link: BorrowedFd<'_>, info: &mut IterInfo) -> io::Result<()> {
    let mut len = size_of::<IterInfo>() as u32;
    // SAFETY: `info` is plain data, as long as `len` says. It names no buffer,
    // or for a link of an iterator, which reads it so, one as long as it says;
    // the kernel writes no more than that.
    check(unsafe {
        libbpf::bpf_link_get_info_by_fd(link.as_raw_fd(), ptr::from_mut(info).cast(), &mut len)
    })?;
    Ok(())
}

/// Attaches a `tp_btf` program to its tracepoint until the link is dropped.
pub(crate) fn link_tracepoint(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: no options are passed; the program's type says the tracepoint.
    check_fd(unsafe {
        libbpf::bpf_link_create(
            program.as_raw_fd(),
            0,
            libbpf::BPF_TRACE_RAW_TP,
            ptr::null(),
        )
    })
}

/// A new iterator of a link: reading it to the end runs its program.
pub(crate) fn new_iterator(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: a plain descriptor argument.
    check_fd(unsafe { libbpf::bpf_iter_create(link.as_raw_fd()) })
}
