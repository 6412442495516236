//! Loads an object by a program that runs in the kernel.
//!
//! libbpf can write down what it would do to load an object, as such a program
//! (`bpftool gen skeleton -L` keeps them in files). It does so without a look at
//! this kernel: the types are found, and instructions fitted to them, by the
//! kernel itself, which need not read its own types from a file, as libbpf does
//! each time. It says less about what went wrong.

use std::ffi::{c_int, CString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::{self, NonNull};

use libbpf_sys as libbpf;

use super::ret::{check, check_fd};

/// The version of libbpf whose loaders are known: the structures below are
/// those of skel_internal.h, which other versions may have otherwise.
const VERSION: (u32, u32) = (1, 7);

/// `struct bpf_loader_ctx`: its first member is the size of all that follows here.
const HEAD: usize = 24;
/// `struct bpf_map_desc`: the descriptor comes first.
const MAP: usize = 16;
/// `struct bpf_prog_desc`: the descriptor.
const PROGRAM: usize = 4;

/// The maps and programs that a loader has made, with their names.
pub(crate) struct Made {
    pub(super) maps: Vec<(CString, OwnedFd)>,
    pub(super) programs: Vec<(CString, OwnedFd)>,
}

/// Whether the loaders of the libbpf that is linked are known, and work here:
/// a loader takes its descriptor 0 for an error.
pub(super) fn can_serve() -> bool {
    // SAFETY: returns a constant.
    let major = unsafe { libbpf::libbpf_major_version() };
    // SAFETY: returns a constant.
    let minor = unsafe { libbpf::libbpf_minor_version() };
    let taken = rustix::io::fcntl_getfd(io::stdin()).is_ok();
    (major, minor) == VERSION && taken
}

/// Loads an open object: all its maps, and those of its programs that are to be
/// loaded, whose names these are in the object's order. It is of no use then.
pub(super) fn load(
    object: NonNull<libbpf::bpf_object>,
    maps: Vec<CString>,
    programs: Vec<CString>,
) -> io::Result<Made> {
    let mut loader = libbpf::gen_loader_opts {
        sz: size_of::<libbpf::gen_loader_opts>() as u64,
        ..Default::default()
    };
    // SAFETY: an open object, not yet loaded, and options that say their size.
    // libbpf keeps a pointer to these until `bpf_object__load` has filled them in.
    check(unsafe { libbpf::bpf_object__gen_loader(object.as_ptr(), &mut loader) })?;
    // SAFETY: as above; it asks the kernel for nothing.
    check(unsafe { libbpf::bpf_object__load(object.as_ptr()) })?;
    let data = data_map(&loader)?;
    let program = program(&loader, &data)?;
    run(&program, maps, programs)
}

/// The map in which the loader has its data.
fn data_map(loader: &libbpf::gen_loader_opts) -> io::Result<OwnedFd> {
    // SAFETY: plain values; no name and no options are passed.
    let map = check_fd(unsafe {
        libbpf::bpf_map_create(
            libbpf::BPF_MAP_TYPE_ARRAY,
            ptr::null(),
            size_of::<c_int>() as u32,
            loader.data_sz,
            1,
            ptr::null(),
        )
    })?;
    let key: c_int = 0;
    // SAFETY: a key of four bytes, and as many bytes of data as the map's value
    // has, which are the object's own; the kernel only reads both.
    check(unsafe {
        libbpf::bpf_map_update_elem(
            map.as_raw_fd(),
            ptr::from_ref(&key).cast(),
            loader.data.cast(),
            0,
        )
    })?;
    Ok(map)
}

fn program(loader: &libbpf::gen_loader_opts, data: &OwnedFd) -> io::Result<OwnedFd> {
    let maps = [data.as_raw_fd()];
    let mut opts = libbpf::bpf_prog_load_opts {
        sz: size_of::<libbpf::bpf_prog_load_opts>() as u64,
        prog_flags: libbpf::BPF_F_SLEEPABLE,
        fd_array: maps.as_ptr(),
        ..Default::default()
    };
    // SAFETY: as many instructions as libbpf says, in memory of the object; the
    // options say their size, and their array outlives the call.
    check_fd(unsafe {
        libbpf::bpf_prog_load(
            libbpf::BPF_PROG_TYPE_SYSCALL,
            ptr::null(),
            c"Dual BSD/GPL".as_ptr(),
            loader.insns.cast(),
            u64::from(loader.insns_sz) / size_of::<libbpf::bpf_insn>() as u64,
            &mut opts,
        )
    })
}

fn run(program: &OwnedFd, maps: Vec<CString>, programs: Vec<CString>) -> io::Result<Made> {
    let (first_map, first_program) = (HEAD, HEAD + maps.len() * MAP);
    let size = first_program + programs.len() * PROGRAM;
    let mut context = vec![0u8; size];
    context[..4].copy_from_slice(&u32::try_from(size).unwrap_or(0).to_ne_bytes());
    let mut opts = libbpf::bpf_test_run_opts {
        sz: size_of::<libbpf::bpf_test_run_opts>() as u64,
        ctx_in: context.as_mut_ptr().cast(),
        ctx_size_in: size as u32,
        ..Default::default()
    };
    // SAFETY: options that say their size. The kernel copies the context, which
    // is as long as they say, and writes it back: `ctx_in` of a program of this
    // type is for both (bpf_prog_test_run_syscall, net/bpf/test_run.c), and was
    // made from a mutable borrow.
    check(unsafe { libbpf::bpf_prog_test_run_opts(program.as_raw_fd(), &mut opts) })?;
    // The compiler did not see the kernel write.
    let context = std::hint::black_box(context);
    check(opts.retval as c_int)?;
    // All are ours before any of them is refused.
    let descriptor = |at: usize| {
        let raw = context[at..at + 4]
            .try_into()
            .map_or(0, c_int::from_ne_bytes);
        check_fd(if raw > 0 { raw } else { -libc::EBADF })
    };
    let fds = |first: usize, size: usize, nr: usize| {
        (0..nr)
            .map(|i| descriptor(first + i * size))
            .collect::<Vec<_>>()
    };
    let map_fds = fds(first_map, MAP, maps.len());
    let program_fds = fds(first_program, PROGRAM, programs.len());
    let named = |names: Vec<CString>, fds: Vec<io::Result<OwnedFd>>| {
        let pairs = names.into_iter().zip(fds);
        pairs
            .map(|(name, fd)| Ok((name, fd?)))
            .collect::<io::Result<_>>()
    };
    Ok(Made {
        maps: named(maps, map_fds)?,
        programs: named(programs, program_fds)?,
    })
}
