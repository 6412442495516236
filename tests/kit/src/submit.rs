//! Requests: one at a time through a ring of any kind, and its completion
//! within a time limit.

use std::ffi::CStr;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::builder::{cqe_size, sqe_size};
use crate::ring::TestRing;
use crate::sys::{self, page_size, Mapping};
use crate::uapi::{self, Sqe, UblkCommand, UblkIo};

/// One request to be. It owns the memory that it names.
#[derive(Debug)]
pub struct Request {
    sqe: Sqe,
    /// What the kernel reads or writes until the request is complete.
    memory: Option<Mapping>,
    /// How much of it is of interest then, if `res` does not say.
    out: Option<usize>,
}

/// A request that was submitted. Dropped before its completion was seen, it
/// leaves its memory mapped for ever: the kernel may still write to it.
#[derive(Debug)]
#[must_use]
pub struct Pending {
    user_data: u64,
    memory: Option<Mapping>,
    out: Option<usize>,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The `res` of its CQE.
    pub res: i32,
    /// What a read has read, or a command has written.
    pub bytes: Vec<u8>,
}

impl Done {
    /// `res` as system calls give it back.
    ///
    /// # Errors
    /// What a negative `res` says.
    pub fn result(&self) -> io::Result<usize> {
        usize::try_from(self.res).map_err(|_| io::Error::from_raw_os_error(-self.res))
    }
}

impl Request {
    /// IORING_OP_READ of up to `len` bytes from where the file is.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn read(fd: impl AsFd, len: usize) -> io::Result<Self> {
        Self::read_from(fd.as_fd().as_raw_fd(), len)
    }

    /// The same from a registered file of the ring.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn read_slot(slot: u32, len: usize) -> io::Result<Self> {
        let mut request = Self::read_from(slot as i32, len)?;
        request.sqe.flags |= uapi::SQE_FIXED_FILE;
        Ok(request)
    }

    fn read_from(fd: i32, len: usize) -> io::Result<Self> {
        let memory = Mapping::anonymous(len.max(1).next_multiple_of(page_size()))?;
        let sqe = Sqe {
            opcode: uapi::OP_READ,
            fd,
            // Where the file is, as read(2).
            off: u64::MAX,
            addr: memory.addr(),
            len: len as u32,
            ..Sqe::default()
        };
        Ok(Self {
            sqe,
            memory: Some(memory),
            out: None,
        })
    }

    /// IORING_OP_READ_FIXED of up to `len` bytes into registered buffer `index`,
    /// which starts at `addr`: as long as it waits, the buffer is in use.
    pub fn read_fixed(fd: impl AsFd, index: u16, addr: u64, len: u32) -> Self {
        let sqe = Sqe {
            opcode: uapi::OP_READ_FIXED,
            fd: fd.as_fd().as_raw_fd(),
            off: u64::MAX,
            addr,
            len,
            buf_index: index,
            ..Sqe::default()
        };
        Self {
            sqe,
            memory: None,
            out: None,
        }
    }

    /// IORING_OP_OPENAT for reading, into a slot of the ring's table.
    pub(crate) fn open_direct(path: &CStr, slot: u32) -> io::Result<Self> {
        let bytes = path.to_bytes_with_nul();
        let memory = Mapping::anonymous(bytes.len().next_multiple_of(page_size()))?;
        memory.write(bytes);
        let sqe = Sqe {
            opcode: uapi::OP_OPENAT,
            fd: libc::AT_FDCWD,
            addr: memory.addr(),
            op_flags: libc::O_RDONLY as u32,
            file_index: slot + 1,
            ..Sqe::default()
        };
        Ok(Self {
            sqe,
            memory: Some(memory),
            out: None,
        })
    }

    /// IORING_OP_URING_CMD to a ublk device, about one of its requests.
    pub(crate) fn command(device: impl AsFd, op: u32, io: UblkIo, addr: u64) -> Self {
        let sqe = Sqe {
            opcode: uapi::OP_URING_CMD,
            fd: device.as_fd().as_raw_fd(),
            off: u64::from(op),
            addr,
            cmd: io.bytes(),
            ..Sqe::default()
        };
        Self {
            sqe,
            memory: None,
            out: None,
        }
    }

    /// IORING_OP_URING_CMD to the ublk driver, which reads and writes a copy of
    /// `data`. It takes a ring of 128-byte entries.
    pub(crate) fn control(
        driver: impl AsFd,
        op: u32,
        mut command: UblkCommand,
        data: &[u8],
    ) -> io::Result<Self> {
        let memory = Mapping::anonymous(data.len().max(1).next_multiple_of(page_size()))?;
        memory.write(data);
        if !data.is_empty() {
            command.addr = memory.addr();
        }
        let sqe = Sqe {
            opcode: uapi::OP_URING_CMD,
            fd: driver.as_fd().as_raw_fd(),
            off: u64::from(op),
            cmd: command.bytes(),
            ..Sqe::default()
        };
        Ok(Self {
            sqe,
            memory: Some(memory),
            out: Some(data.len()),
        })
    }

    /// Never inline: a worker thread does it (IOSQE_ASYNC).
    #[must_use]
    pub fn by_worker(mut self) -> Self {
        self.sqe.flags |= uapi::SQE_ASYNC;
        self
    }
}

impl TestRing {
    /// Submits a request and does not wait. One at a time: the kit's rings have
    /// no bookkeeping for more.
    ///
    /// # Errors
    /// What io_uring_enter(2) says; EBUSY if the submission queue is full.
    pub fn submit(&mut self, mut request: Request) -> io::Result<Pending> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1 << 62);
        let user_data = NEXT.fetch_add(1, Ordering::Relaxed);
        request.sqe.user_data = user_data;
        self.push(&request.sqe)?;
        let pending = Pending {
            user_data,
            memory: request.memory,
            out: request.out,
        };
        let sqpoll = self.params.flags & uapi::SETUP_SQPOLL != 0;
        match sys::enter(self.target()?, 1) {
            Ok(submitted) if sqpoll || submitted == 1 => Ok(pending),
            Ok(_) => Err(io::Error::other("the kernel took no request")),
            Err(e) => Err(e),
        }
    }

    /// Waits for the completion of a request, and throws away all others that
    /// are posted before it.
    ///
    /// # Errors
    /// `TimedOut`, with the request still under way.
    pub fn wait(&mut self, mut pending: Pending, limit: Duration) -> io::Result<Done> {
        let start = Instant::now();
        loop {
            while let Some((user_data, res)) = self.pop() {
                if user_data != pending.user_data {
                    continue;
                }
                let read = usize::try_from(res).unwrap_or(0);
                let len = pending.out.unwrap_or(read);
                let memory = pending.memory.take();
                let bytes = memory.map_or_else(Vec::new, |memory| memory.read(len));
                return Ok(Done { res, bytes });
            }
            if start.elapsed() > limit {
                let text = format!("no completion in {limit:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            sys::enter(self.target()?, 0)?;
            thread::sleep(Duration::from_micros(100));
        }
    }

    /// Both.
    ///
    /// # Errors
    /// Those of both.
    pub fn run(&mut self, request: Request, limit: Duration) -> io::Result<Done> {
        let pending = self.submit(request)?;
        self.wait(pending, limit)
    }

    /// Submits so many requests that do nothing (IORING_OP_NOP) by one call, and
    /// takes their completions, and all others there are.
    ///
    /// # Errors
    /// EBUSY if they are more than the submission queue holds; `Other` if they are
    /// not complete when the call returns, as with SQPOLL.
    pub fn nops(&mut self, count: u32) -> io::Result<()> {
        let nop = Sqe::default();
        for _ in 0..count {
            self.push(&nop)?;
        }
        let submitted = sys::enter(self.target()?, count)?;
        let complete = self.drain();
        if submitted < count as usize || complete < count {
            let text = format!("{submitted} of {count} submitted, {complete} complete");
            return Err(io::Error::other(text));
        }
        Ok(())
    }

    /// Submits so many timeouts (IORING_OP_TIMEOUT), of which one ends after each
    /// `every`, and does not wait. Each calls for the thread that has submitted it.
    ///
    /// # Errors
    /// EBUSY if they are more than the submission queue holds; ENOMEM.
    pub fn timeouts(&mut self, count: u32, every: Duration) -> io::Result<()> {
        let memory = Mapping::anonymous(page_size())?;
        for nth in 1..=count {
            let after = every * nth;
            let timespec = [after.as_secs(), u64::from(after.subsec_nanos())];
            memory.write(timespec.map(u64::to_ne_bytes).as_flattened());
            self.push(&Sqe {
                opcode: uapi::OP_TIMEOUT,
                addr: memory.addr(),
                len: 1,
                ..Sqe::default()
            })?;
            // The kernel reads the time when it takes the request.
            if sys::enter(self.target()?, 1)? != 1 {
                return Err(io::Error::other("the kernel took no request"));
            }
        }
        Ok(())
    }

    /// Writes one request to the submission queue.
    fn push(&mut self, sqe: &Sqe) -> io::Result<()> {
        let offsets = self.params.sq_off;
        let (head, tail) = (
            self.rings.atomic_u32(offsets.head),
            self.rings.atomic_u32(offsets.tail),
        );
        let at = tail.load(Ordering::Relaxed);
        if at.wrapping_sub(head.load(Ordering::Acquire)) >= self.params.sq_entries {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        let index = at & (self.params.sq_entries - 1);
        let size = sqe_size(&self.params) as u32;
        let start = index * size;
        for (i, word) in sqe.words().into_iter().take(size as usize / 4).enumerate() {
            let place = self.sqes.atomic_u32(start + 4 * i as u32);
            place.store(word, Ordering::Relaxed);
        }
        let array = self.rings.atomic_u32(offsets.array + 4 * index);
        array.store(index, Ordering::Relaxed);
        tail.store(at.wrapping_add(1), Ordering::Release);
        Ok(())
    }

    /// Takes one completion: `user_data` and `res`.
    fn pop(&mut self) -> Option<(u64, i32)> {
        let offsets = self.params.cq_off;
        let (head, tail) = (
            self.rings.atomic_u32(offsets.head),
            self.rings.atomic_u32(offsets.tail),
        );
        let at = head.load(Ordering::Relaxed);
        if at == tail.load(Ordering::Acquire) {
            return None;
        }
        let index = at & (self.params.cq_entries - 1);
        let start = offsets.cqes + index * cqe_size(&self.params) as u32;
        let word = |i: u32| self.rings.atomic_u32(start + 4 * i).load(Ordering::Relaxed);
        let user_data = [word(0).to_ne_bytes(), word(1).to_ne_bytes()].concat();
        let user_data = u64::from_ne_bytes(user_data.try_into().expect("eight bytes"));
        let res = word(2) as i32;
        head.store(at.wrapping_add(1), Ordering::Release);
        Some((user_data, res))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // Only `wait` takes it away.
        mem::forget(self.memory.take());
    }
}
