//! BPF objects: opened and loaded, through libbpf.

use std::ffi::{c_char, CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError};

use libbpf_sys as libbpf;

use super::loader::{self, Made};
use super::ret::check;
use super::signals::Blocked;

/// Bytes of an ELF file, aligned as libelf reads them best.
#[repr(C, align(8))]
struct Aligned<B: ?Sized>(B);

macro_rules! object_file {
    ($path:literal) => {{
        static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!($path));
        &FILE.0
    }};
}

/// The compiled `bpf/bufs.bpf.c`.
pub(crate) fn bufs_object() -> &'static [u8] {
    object_file!("../../bpf/bufs.bpf.o")
}

/// The compiled `bpf/epoll.bpf.c`.
pub(crate) fn epoll_object() -> &'static [u8] {
    object_file!("../../bpf/epoll.bpf.o")
}

/// The compiled `bpf/files.bpf.c`.
pub(crate) fn files_object() -> &'static [u8] {
    object_file!("../../bpf/files.bpf.o")
}

/// The compiled `bpf/pages.bpf.c`.
pub(crate) fn pages_object() -> &'static [u8] {
    object_file!("../../bpf/pages.bpf.o")
}

/// The compiled `bpf/frames.bpf.c`.
pub(crate) fn frames_object() -> &'static [u8] {
    object_file!("../../bpf/frames.bpf.o")
}

/// The compiled `bpf/rings.bpf.c`.
pub(crate) fn rings_object() -> &'static [u8] {
    object_file!("../../bpf/rings.bpf.o")
}

/// The compiled `bpf/sets.bpf.c`.
pub(crate) fn sets_object() -> &'static [u8] {
    object_file!("../../bpf/sets.bpf.o")
}

/// Why an object did not load: the kernel's errno and the verifier's words.
#[derive(Debug)]
pub(crate) struct LoadError {
    pub(crate) source: io::Error,
    pub(crate) log: String,
}

/// A BPF object: its maps and programs, none of them loaded.
pub(crate) struct Object {
    ptr: NonNull<libbpf::bpf_object>,
}

/// The maps of an object, and the programs that were chosen from it.
pub(crate) enum Loaded {
    /// By libbpf, which keeps their descriptors.
    Libbpf(Object),
    /// By a loader.
    Loader(Made),
}

// SAFETY: libbpf keeps no thread-local state for an object, and all methods
// that change it take `&mut self`.
unsafe impl Send for Object {}
// SAFETY: the methods that take `&self` only look descriptors up.
unsafe impl Sync for Object {}

/// libbpf prints to stderr by a global function; this silences it while one of
/// our calls runs. The error says what went wrong.
struct Quiet {
    before: libbpf::libbpf_print_fn_t,
    _one_at_a_time: std::sync::MutexGuard<'static, ()>,
}

impl Quiet {
    fn new() -> Self {
        static LOCK: Mutex<()> = Mutex::new(());
        let guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: sets a global function pointer, atomically in libbpf 1.x.
        let before = unsafe { libbpf::libbpf_set_print(None) };
        Self {
            before,
            _one_at_a_time: guard,
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // SAFETY: gives libbpf the function back that it had.
        unsafe { libbpf::libbpf_set_print(self.before) };
    }
}

/// libbpf asks the kernel what it can do by small maps and programs, and takes any
/// failure for a no, for good (feat_supported(), features.c). So there must be room for
/// them: more descriptors than it ever has open for that.
fn room_to_probe() -> io::Result<()> {
    const DESCRIPTORS: usize = 16;
    let files = (0..DESCRIPTORS).map(|_| File::open("/proc/self/stat"));
    files.collect::<io::Result<Vec<File>>>().map(drop)
}

impl Object {
    pub(crate) fn open(file: &'static [u8]) -> io::Result<Self> {
        let _quiet = Quiet::new();
        // SAFETY: libbpf parses the bytes and keeps what it needs; they are
        // static; no options are passed.
        let ptr = unsafe {
            libbpf::bpf_object__open_mem(file.as_ptr().cast(), file.len() as u64, ptr::null())
        };
        match NonNull::new(ptr) {
            Some(ptr) => Ok(Self { ptr }),
            None => Err(io::Error::last_os_error()),
        }
    }

    /// Sets the number of entries of a map, before `load`.
    pub(crate) fn set_max_entries(&mut self, map: &CStr, entries: u32) -> io::Result<()> {
        let map = self.map(map)?;
        // SAFETY: a map of this object, which is alive and not shared.
        check(unsafe { libbpf::bpf_map__set_max_entries(map.as_ptr(), entries) })?;
        Ok(())
    }

    /// Loads the maps and these programs by a program in the kernel, which takes
    /// half the time that `load` takes and less.
    pub(crate) fn load_fast(mut self, programs: &[&CStr]) -> io::Result<Loaded> {
        let _quiet = Quiet::new();
        // With one pending, the verifier gives up (EAGAIN).
        let _blocked = Blocked::new();
        if !loader::can_serve() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        room_to_probe()?;
        self.choose(programs, None)?;
        loader::load(self.ptr, self.map_names(), self.chosen()).map(Loaded::Loader)
    }

    /// Loads the maps and these programs, and no other.
    pub(crate) fn load(mut self, programs: &[&CStr]) -> Result<Loaded, LoadError> {
        let mut log = vec![0u8; 64 * 1024];
        let _quiet = Quiet::new();
        let _blocked = Blocked::new();
        let loaded = room_to_probe()
            .and_then(|()| self.choose(programs, Some(&mut log)))
            .and_then(|()| {
                // SAFETY: an open object that has not been loaded yet.
                check(unsafe { libbpf::bpf_object__load(self.ptr.as_ptr()) })
            });
        match loaded {
            Ok(_) => Ok(Loaded::Libbpf(self)),
            Err(source) => Err(LoadError {
                source,
                log: CStr::from_bytes_until_nul(&log)
                    .map(|text| text.to_string_lossy().into_owned())
                    .unwrap_or_default(),
            }),
        }
    }

    fn choose(&mut self, programs: &[&CStr], mut log: Option<&mut [u8]>) -> io::Result<()> {
        for program in self.programs() {
            // SAFETY: a program of this object, which is not loaded yet.
            check(unsafe { libbpf::bpf_program__set_autoload(program.as_ptr(), false) })?;
        }
        for name in programs {
            let program = self.program(name)?;
            // SAFETY: as above.
            check(unsafe { libbpf::bpf_program__set_autoload(program.as_ptr(), true) })?;
            let Some(log) = log.as_deref_mut() else {
                continue;
            };
            // SAFETY: libbpf writes to the buffer in `load` only, which keeps
            // it alive, and at most its length.
            check(unsafe {
                libbpf::bpf_program__set_log_buf(
                    program.as_ptr(),
                    log.as_mut_ptr().cast::<c_char>(),
                    log.len() as u64,
                )
            })?;
        }
        Ok(())
    }

    /// All of its programs.
    fn programs(&self) -> Vec<NonNull<libbpf::bpf_program>> {
        let next = |program: Option<NonNull<_>>| {
            let before = program.map_or(ptr::null_mut(), NonNull::as_ptr);
            // SAFETY: an open object, and null or a program of it.
            NonNull::new(unsafe { libbpf::bpf_object__next_program(self.ptr.as_ptr(), before) })
        };
        std::iter::successors(next(None), |&program| next(Some(program))).collect()
    }

    /// The names of those that are to be loaded.
    fn chosen(&self) -> Vec<CString> {
        let mut programs = self.programs();
        // SAFETY: a program of this object.
        programs.retain(|program| unsafe { libbpf::bpf_program__autoload(program.as_ptr()) });
        let name = |program: NonNull<_>| {
            // SAFETY: a program of this object, which keeps its name, terminated.
            let name = unsafe { libbpf::bpf_program__name(program.as_ptr()) };
            // SAFETY: as above.
            unsafe { CStr::from_ptr(name) }.to_owned()
        };
        programs.into_iter().map(name).collect()
    }

    fn map_names(&self) -> Vec<CString> {
        let next = |map: Option<NonNull<_>>| {
            let before = map.map_or(ptr::null_mut(), NonNull::as_ptr);
            // SAFETY: an open object, and null or a map of it.
            NonNull::new(unsafe { libbpf::bpf_object__next_map(self.ptr.as_ptr(), before) })
        };
        let name = |map: NonNull<_>| {
            // SAFETY: a map of this object, which keeps its name, terminated.
            let name = unsafe { libbpf::bpf_map__name(map.as_ptr()) };
            // SAFETY: as above.
            unsafe { CStr::from_ptr(name) }.to_owned()
        };
        let maps = std::iter::successors(next(None), |&map| next(Some(map)));
        maps.map(name).collect()
    }

    fn map(&self, name: &CStr) -> io::Result<NonNull<libbpf::bpf_map>> {
        // SAFETY: an open object and a terminated string.
        let map = unsafe { libbpf::bpf_object__find_map_by_name(self.ptr.as_ptr(), name.as_ptr()) };
        NonNull::new(map).ok_or_else(io::Error::last_os_error)
    }

    fn program(&self, name: &CStr) -> io::Result<NonNull<libbpf::bpf_program>> {
        // SAFETY: an open object and a terminated string.
        let program =
            unsafe { libbpf::bpf_object__find_program_by_name(self.ptr.as_ptr(), name.as_ptr()) };
        NonNull::new(program).ok_or_else(io::Error::last_os_error)
    }
}

impl Loaded {
    pub(crate) fn map_fd(&self, name: &CStr) -> io::Result<BorrowedFd<'_>> {
        let object = match self {
            Self::Libbpf(object) => object,
            Self::Loader(made) => return fd_of(&made.maps, name),
        };
        let map = object.map(name)?;
        // SAFETY: a map of this object.
        let fd = check(unsafe { libbpf::bpf_map__fd(map.as_ptr()) })?;
        // SAFETY: the object keeps the descriptor open as long as it lives.
        Ok(unsafe { BorrowedFd::borrow_raw(fd) })
    }

    pub(crate) fn program_fd(&self, name: &CStr) -> io::Result<BorrowedFd<'_>> {
        let object = match self {
            Self::Libbpf(object) => object,
            Self::Loader(made) => return fd_of(&made.programs, name),
        };
        let program = object.program(name)?;
        // SAFETY: a program of this object.
        let fd = check(unsafe { libbpf::bpf_program__fd(program.as_ptr()) })?;
        // SAFETY: the object keeps the descriptor open as long as it lives.
        Ok(unsafe { BorrowedFd::borrow_raw(fd) })
    }
}

/// Runs a program of type `syscall` once, without an argument (Linux 5.14).
pub(crate) fn run(program: BorrowedFd<'_>) -> io::Result<()> {
    let mut opts = libbpf::bpf_test_run_opts {
        sz: size_of::<libbpf::bpf_test_run_opts>() as u64,
        ..Default::default()
    };
    // SAFETY: options that say their size and name no memory; the program is given
    // none either.
    check(unsafe { libbpf::bpf_prog_test_run_opts(program.as_raw_fd(), &mut opts) })?;
    Ok(())
}

fn fd_of<'a>(made: &'a [(CString, OwnedFd)], name: &CStr) -> io::Result<BorrowedFd<'a>> {
    let mut made = made.iter();
    made.find(|(of, _)| **of == *name)
        .map(|(_, fd)| fd.as_fd())
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: opened by `open`, closed once; every borrow has ended.
        unsafe { libbpf::bpf_object__close(self.ptr.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else each start would take twice as long, and nothing would tell.
    #[test]
    fn loaders_of_this_libbpf_are_known() {
        let program = match crate::kernel::at_least(6, 9) {
            true => c"dump_task",
            false => c"dump_task_compat",
        };
        let object = Object::open(bufs_object()).unwrap();
        let object = object.load_fast(&[program]).unwrap();
        object.program_fd(program).unwrap();
        object.program_fd(c"dump_native").unwrap_err();
        object.map_fd(c".bss.request").unwrap();
        object.map_fd(c".bss.no").unwrap_err();
    }
}
