//! A buffer of the kernel's own in a ring's table: that of a request to a block
//! device which the test itself serves (ublk with UBLK_F_AUTO_BUF_REG, Linux
//! 6.16, drivers/block/ublk_drv.c).
//!
//! ```text
//! a thread: read(/dev/ublkbN, O_DIRECT) ──▶ request ──▶ slot of the ring's table
//!           its pages are the buffer's                  until it is answered
//! ```

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::builder::RingBuilder;
use crate::ring::TestRing;
use crate::submit::{Pending, Request};
use crate::sys::page_size;
use crate::uapi::{self, UblkCommand, UblkDevice, UblkIo, UblkParams};

/// Longer than any step takes, also where the processor is emulated.
const LIMIT: Duration = Duration::from_secs(60);

/// Which device; there is no other on a machine for tests.
const NEW: u32 = u32::MAX;

/// A ring with one slot that holds a buffer of the kernel's own. Dropped, the
/// request is answered and the device removed.
#[derive(Debug)]
pub struct KernelBuf {
    ring: TestRing,
    slot: u16,
    addr: u64,
    len: usize,
    /// The device's own descriptor, through which requests are answered.
    device: File,
    request: Option<Pending>,
    reader: Option<JoinHandle<io::Result<()>>>,
    _served: Served,
}

impl KernelBuf {
    /// A ring with a sparse table of `slots`, one of which holds the pages that
    /// somebody reads to: `pages` of them.
    ///
    /// # Errors
    /// `Unsupported` with the reason if this kernel cannot.
    pub fn new(slots: u32, slot: u16, pages: usize) -> io::Result<Self> {
        let mut ring = RingBuilder::new(8).build()?;
        ring.register_sparse(slots)?;
        let served = Served::add(pages * page_size())?;
        let device = wait_for(&format!("/dev/ublkc{}", served.number), 0)?;
        let fetch = io_request(device.as_fd(), uapi::UBLK_FETCH, 0, slot);
        let request = ring.submit(fetch)?;
        served.start()?;

        let disk = wait_for(&format!("/dev/ublkb{}", served.number), libc::O_DIRECT)?;
        let len = pages * page_size();
        let (tell, told) = mpsc::channel();
        let reader = thread::spawn(move || {
            let mut memory = vec![1; len + page_size()];
            let start = memory.as_ptr().align_offset(page_size());
            let pages = &mut memory[start..start + len];
            let _nobody_waits = tell.send(pages.as_ptr() as u64);
            disk.read_exact_at(pages, 0)
        });
        let addr = told.recv().map_err(io::Error::other)?;
        let mut buf = Self {
            ring,
            slot,
            addr,
            len,
            device,
            request: None,
            reader: Some(reader),
            _served: served,
        };
        // It comes when there is something to be done.
        buf.ring.wait(request, LIMIT)?.result()?;
        Ok(buf)
    }

    /// The ring.
    pub fn ring(&self) -> &TestRing {
        &self.ring
    }

    /// The slot that holds the buffer.
    pub fn slot(&self) -> u16 {
        self.slot
    }

    /// Bytes of the buffer.
    pub fn size(&self) -> usize {
        self.len
    }

    /// Where this process has the same pages mapped.
    pub fn mapped_at(&self) -> u64 {
        self.addr
    }

    /// Answers the request: the slot is empty then.
    ///
    /// # Errors
    /// What the reader got, or the ring's refusal.
    pub fn answer(&mut self) -> io::Result<()> {
        let Some(reader) = self.reader.take() else {
            return Ok(());
        };
        let commit = io_request(
            self.device.as_fd(),
            uapi::UBLK_COMMIT_AND_FETCH,
            self.len as i32,
            self.slot,
        );
        self.request = Some(self.ring.submit(commit)?);
        reader.join().map_err(|_| io::Error::other("the reader"))?
    }
}

impl Drop for KernelBuf {
    fn drop(&mut self) {
        if let Err(error) = self.answer() {
            eprintln!("ublk: {error}");
        }
    }
}

/// A device that is being served, through a ring of its own.
#[derive(Debug)]
struct Served {
    number: u32,
}

impl Served {
    fn add(bytes: usize) -> io::Result<Self> {
        let wanted = uapi::UBLK_F_SUPPORT_ZERO_COPY
            | uapi::UBLK_F_IOCTL_ENCODE
            | uapi::UBLK_F_AUTO_BUF_REG
            | uapi::UBLK_F_NO_AUTO_PART_SCAN;
        let device = UblkDevice {
            nr_hw_queues: 1,
            queue_depth: 1,
            max_io_buf_bytes: bytes as u32,
            dev_id: NEW,
            ublksrv_pid: std::process::id() as i32,
            flags: wanted,
        };
        let made = control(NEW, uapi::UBLK_ADD_DEV, &device.bytes(), 0);
        let made = made.map_err(|e| match e.raw_os_error() {
            // ublk_ctrl_uring_cmd() of 6.1: any other operation is for a device, and
            // there is none of this number.
            Some(libc::ENODEV) => unsupported("this kernel's ublk is older than Linux 6.4"),
            _ => e,
        })?;
        let made = UblkDevice::of(&made);
        let served = Self {
            number: made.dev_id,
        };
        if made.flags & wanted != wanted {
            return Err(unsupported(
                "this kernel's ublk registers no buffers by itself (it takes Linux 6.16), \
                 or reads the device at once (it takes Linux 7.0 to tell it not to)",
            ));
        }
        let params = UblkParams {
            logical_bs_shift: 9,
            physical_bs_shift: 12,
            io_opt_shift: 12,
            io_min_shift: 9,
            max_sectors: (bytes / 512) as u32,
            dev_sectors: (bytes / 512) as u64,
        };
        control(served.number, uapi::UBLK_SET_PARAMS, &params.bytes(), 0)?;
        Ok(served)
    }

    fn start(&self) -> io::Result<()> {
        let pid = u64::from(std::process::id());
        control(self.number, uapi::UBLK_START_DEV, &[], pid).map(drop)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        for op in [uapi::UBLK_STOP_DEV, uapi::UBLK_DEL_DEV_ASYNC] {
            if let Err(error) = control(self.number, op, &[], 0) {
                eprintln!("ublk: {error}");
            }
        }
    }
}

/// One command to the driver; gives back what it was given, as it is then.
fn control(number: u32, op: u32, data: &[u8], inline: u64) -> io::Result<Vec<u8>> {
    let path = "/dev/ublk-control";
    let driver = OpenOptions::new().read(true).write(true).open(path);
    let driver = driver.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => unsupported("this kernel has no ublk (CONFIG_BLK_DEV_UBLK)"),
        _ => e,
    })?;
    let mut ring = RingBuilder::new(2).sqe128().build()?;
    let command = UblkCommand {
        dev_id: number,
        queue_id: u16::MAX,
        len: data.len() as u16,
        addr: 0,
        data: inline,
    };
    let done = ring.run(Request::control(driver.as_fd(), op, command, data)?, LIMIT)?;
    done.result()?;
    Ok(done.bytes)
}

fn io_request(device: BorrowedFd<'_>, op: u32, result: i32, slot: u16) -> Request {
    let io = UblkIo {
        q_id: 0,
        tag: 0,
        result,
        addr: 0,
    };
    Request::command(device, op, io, u64::from(slot))
}

/// Opens what devtmpfs makes in a moment.
fn wait_for(path: &str, flags: i32) -> io::Result<File> {
    let start = Instant::now();
    while !Path::new(path).exists() && start.elapsed() < LIMIT {
        thread::sleep(Duration::from_millis(1));
    }
    let mut options = OpenOptions::new();
    let options = options.read(true).write(flags == 0).custom_flags(flags);
    options
        .open(path)
        .map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")))
}

fn unsupported(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, text)
}
