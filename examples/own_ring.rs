//! A ring of this process, made with the crate io-uring, and the buffers that
//! are registered in it. Attaching takes the feature `io-uring` of this crate.

use std::error::Error;
use std::io;

use io_uring::IoUring;
use uring_bpf_iter::{RegisteredBufs, UringBufIter};

fn main() -> Result<(), Box<dyn Error>> {
    // Declared before the ring, so dropped after it.
    let memory = [100, 5_000, 70_000].map(|len| vec![0u8; len]);
    let ring = IoUring::new(8)?;
    register(&ring, &memory)?;

    let mut iter = UringBufIter::attach(&ring)?;
    let bufs = iter.snapshot()?; // derefs to &[RegisteredBuf]
    println!("read by {}, {}", bufs.backend(), bufs.consistency());
    for buf in bufs.filled() {
        let (index, addr, len) = (buf.index(), buf.addr(), buf.len());
        println!("{index}: {addr:#x}, {len} bytes, pages: {}", buf.nr_pages());
    }
    println!("{} bytes pinned", bufs.pinned_bytes());
    Ok(())
}

#[allow(unsafe_code)] // the crate io-uring offers no safe way
fn register(ring: &IoUring, memory: &[Vec<u8>]) -> io::Result<()> {
    let iovec = |bytes: &Vec<u8>| libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let iovecs: Vec<libc::iovec> = memory.iter().map(iovec).collect();
    // SAFETY: the caller keeps `memory` for longer than the ring, and no request
    // of the ring uses it.
    unsafe { ring.submitter().register_buffers(&iovecs) }
}
