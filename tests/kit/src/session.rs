//! BPF iterators by hand: a program of a few instructions, its links and its
//! sessions (iterator descriptors), with nothing between a test and the kernel.
//!
//! The program writes the last member of its context as eight bytes for each
//! element: the index for `io_uring_buf` and `io_uring_file`, the last one being
//! the size of the table; an address for `epoll`, 0 at the end.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::btf;
use crate::sys::{self, Insn};

/// A loaded program for one iterator target.
#[derive(Debug)]
pub struct IterProgram(OwnedFd);

/// A link: the program and one ring, or one epoll set.
#[derive(Debug)]
pub struct IterLink(OwnedFd);

/// One walk: what bpf_iter_create gives, to be read.
#[derive(Debug)]
pub struct IterSession(File);

/// What the kernel says about a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IterLinkInfo {
    /// The link's number.
    pub id: u32,
    /// The name of the iterator target.
    pub target: String,
    /// The first two numbers that the target tells: `inode`, and `ep_id`.
    pub words: [u64; 2],
}

/// The names of the BPF programs of which this process has descriptors, as far as the
/// kernel keeps them: 15 bytes.
///
/// # Errors
/// Those of reading `/proc/self/fd`.
pub fn loaded_programs() -> io::Result<Vec<String>> {
    let programs = descriptors("anon_inode:bpf-prog")?;
    Ok(programs.into_iter().flat_map(sys::prog_name).collect())
}

/// The numbers of this process's descriptors of such files.
fn descriptors(what: &str) -> io::Result<Vec<RawFd>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let path = entry?.path();
        // What other threads close meanwhile is passed over.
        let is_one = std::fs::read_link(&path).is_ok_and(|found| found.as_os_str() == what);
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        numbers.extend(number.filter(|_: &RawFd| is_one));
    }
    Ok(numbers)
}

/// The links of which this process has descriptors, whoever has made them.
///
/// # Errors
/// Those of reading `/proc/self/fd`.
pub fn own_links() -> io::Result<Vec<IterLink>> {
    let links = descriptors("anon_inode:bpf_link")?;
    links
        .into_iter()
        .map(|number| sys::duplicate(number).map(IterLink))
        .collect()
}

/// A BPF array of which this process has a descriptor.
#[derive(Debug)]
pub struct BpfArray(OwnedFd);

impl BpfArray {
    /// An array of one number.
    ///
    /// # Errors
    /// EPERM.
    pub fn of_a_number() -> io::Result<Self> {
        sys::bpf_map().map(Self)
    }

    /// Those of this name, whoever has made them.
    ///
    /// # Errors
    /// Those of reading `/proc/self/fd`.
    pub fn own(name: &str) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        for number in descriptors("anon_inode:bpf-map")? {
            let map = sys::duplicate(number)?;
            if sys::map_info(map.as_fd())?.name() == name.as_bytes() {
                found.push(Self(map));
            }
        }
        Ok(found)
    }

    /// The bytes of one element.
    ///
    /// # Errors
    /// ENOENT if it has fewer; EPERM.
    pub fn read(&self, at: u32) -> io::Result<Vec<u8>> {
        sys::array_read(self.0.as_fd(), at)
    }

    /// Puts zeroes into one element.
    ///
    /// # Errors
    /// E2BIG if it has fewer; EPERM.
    pub fn clear(&self, at: u32) -> io::Result<()> {
        sys::array_clear(self.0.as_fd(), at)
    }
}

/// As long as it lives, the kernel counts how often BPF programs run.
#[derive(Debug)]
pub struct ProgramRuns(#[allow(dead_code, reason = "closed when it is dropped")] OwnedFd);

impl ProgramRuns {
    /// Begins to count.
    ///
    /// # Errors
    /// EPERM without `CAP_SYS_ADMIN`.
    pub fn count() -> io::Result<Self> {
        sys::enable_stats().map(Self)
    }

    /// The runs, so far, of all programs of which this process has descriptors.
    ///
    /// # Errors
    /// Those of reading `/proc/self`.
    pub fn so_far(&self) -> io::Result<u64> {
        let mut runs = 0;
        for entry in std::fs::read_dir("/proc/self/fdinfo")? {
            let text = std::fs::read_to_string(entry?.path()).unwrap_or_default();
            let count = text.lines().find_map(|line| line.strip_prefix("run_cnt:"));
            runs += count.map_or(0, |count| count.trim().parse().unwrap_or(0));
        }
        Ok(runs)
    }
}

/// Whether the running kernel has the iterator target.
///
/// # Errors
/// ENOENT on a kernel without BTF.
pub fn has_iterator(target: &str) -> io::Result<bool> {
    Ok(btf::function(&format!("bpf_iter_{target}"))?.is_some())
}

impl IterProgram {
    /// Loads it.
    ///
    /// # Errors
    /// `Unsupported` if the kernel has no such target; what the verifier says.
    pub fn load(target: &str) -> io::Result<Self> {
        Self::load_as(target, false)
    }

    /// Loads one that may sleep (BPF_F_SLEEPABLE).
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub fn load_sleepable(target: &str) -> io::Result<Self> {
        Self::load_as(target, true)
    }

    /// Loads one that writes nothing and returns this: 0 goes on, 1 has the
    /// kernel show the same element again.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub fn load_silent(target: &str, returned: i32) -> io::Result<Self> {
        let insns = [insn(0xb7, 0, 0, 0, returned), insn(0x95, 0, 0, 0, 0)];
        sys::prog_load(&insns, function(target)?, false).map(Self)
    }

    /// Loads one that writes nothing and adds 1 to a number for each element.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub fn load_counting(target: &str, number: &BpfArray) -> io::Result<Self> {
        let insns = counting(number.0.as_raw_fd());
        sys::prog_load(&insns, function(target)?, false).map(Self)
    }

    fn load_as(target: &str, sleepable: bool) -> io::Result<Self> {
        let last = if target == "epoll" { 16 } else { 24 };
        sys::prog_load(&program(last), function(target)?, sleepable).map(Self)
    }

    /// Links it to a ring, or to an epoll set, by a link info of four bytes.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attach(&self, fd: impl AsFd) -> io::Result<IterLink> {
        let number = fd.as_fd().as_raw_fd() as u32;
        self.attach_by(Some(&number.to_ne_bytes()), None)
    }

    /// Links it with any link info, and a length that is not its own.
    ///
    /// # Errors
    /// The kernel's refusal.
    ///
    /// # Panics
    /// If `len` is more than there is of `info`.
    pub fn attach_by(&self, info: Option<&[u8]>, len: Option<u32>) -> io::Result<IterLink> {
        sys::link_create(self.0.as_fd(), info, len).map(IterLink)
    }
}

impl IterLink {
    /// Begins a walk.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn open(&self) -> io::Result<IterSession> {
        sys::iter_create(self.0.as_fd()).map(|fd| IterSession(fd.into()))
    }

    /// Gives it a name in a BPF file system.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn pin(&self, path: &str) -> io::Result<()> {
        sys::pin(self.0.as_fd(), path)
    }

    /// Gives it another program.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn update(&self, program: &IterProgram) -> io::Result<()> {
        sys::link_update(self.0.as_fd(), program.0.as_fd())
    }

    /// Asks about it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn info(&self) -> io::Result<IterLinkInfo> {
        let (info, target) = sys::link_info(self.0.as_fd())?;
        Ok(IterLinkInfo {
            id: info.id,
            target,
            words: info.words,
        })
    }
}

impl IterSession {
    /// One read(2).
    ///
    /// # Errors
    /// EDEADLK: uring_lock was taken; ENXIO: ring or epoll set is gone.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }

    /// Reads to the end, `step` bytes at a time, and returns what the program
    /// has written.
    ///
    /// # Errors
    /// Those of [`read`](Self::read); what was read before is lost.
    pub fn read_all(&mut self, step: usize) -> io::Result<Vec<u64>> {
        let (mut all, mut buf) = (Vec::new(), vec![0; step]);
        loop {
            match self.read(&mut buf)? {
                0 => break,
                n => all.extend_from_slice(&buf[..n]),
            }
        }
        Ok(words(&all))
    }

    /// Whether reads through a ring are to be issued inline (O_NONBLOCK).
    ///
    /// # Errors
    /// EBADF cannot happen.
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        sys::set_nonblocking(self.0.as_fd(), on)
    }
}

/// Bytes that the program has written, as numbers.
///
/// # Panics
/// If the last one is not whole.
pub fn words(bytes: &[u8]) -> Vec<u64> {
    assert_eq!(bytes.len() % 8, 0, "a number is not whole");
    let word = |chunk: &[u8]| u64::from_ne_bytes(chunk.try_into().expect("eight bytes"));
    bytes.chunks(8).map(word).collect()
}

impl AsFd for IterLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for IterSession {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What a program of this target attaches to, by its number in the kernel's BTF.
fn function(target: &str) -> io::Result<u32> {
    btf::function(&format!("bpf_iter_{target}"))?.ok_or_else(|| {
        let text = format!("this kernel has no iterator target {target}");
        io::Error::new(io::ErrorKind::Unsupported, text)
    })
}

fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
    Insn {
        code,
        regs: dst | src << 4,
        off,
        imm,
    }
}

/// `bpf_seq_write(ctx->meta->seq, &ctx[at], 8); return 0;`
fn program(at: i16) -> [Insn; 10] {
    const LOAD: u8 = 0x79;
    const MOVE: u8 = 0xbf;
    [
        insn(LOAD, 3, 1, at, 0),
        insn(0x7b, 10, 3, -8, 0),
        insn(LOAD, 1, 1, 0, 0),
        insn(LOAD, 1, 1, 0, 0),
        insn(MOVE, 2, 10, 0, 0),
        insn(0x07, 2, 0, 0, -8),
        insn(0xb7, 3, 0, 0, 8),
        // BPF_FUNC_seq_write
        insn(0x85, 0, 0, 0, 127),
        insn(0xb7, 0, 0, 0, 0),
        insn(0x95, 0, 0, 0, 0),
    ]
}

/// `u64 *number = bpf_map_lookup_elem(map, &(u32){0}); if (number) ++*number; return 0;`
fn counting(map: RawFd) -> [Insn; 11] {
    [
        insn(0x62, 10, 0, -4, 0),
        insn(0xbf, 2, 10, 0, 0),
        insn(0x07, 2, 0, 0, -4),
        // BPF_PSEUDO_MAP_FD: the address of the map, in two halves
        insn(0x18, 1, 1, 0, map),
        insn(0, 0, 0, 0, 0),
        // BPF_FUNC_map_lookup_elem
        insn(0x85, 0, 0, 0, 1),
        insn(0x15, 0, 0, 2, 0),
        insn(0xb7, 1, 0, 0, 1),
        insn(0xdb, 0, 1, 0, 0),
        insn(0xb7, 0, 0, 0, 0),
        insn(0x95, 0, 0, 0, 0),
    ]
}
