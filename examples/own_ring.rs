//! A ring of this process, made with the crate io-uring, and its tables of
//! registered files and buffers. Attaching takes the feature `io-uring` of this
//! crate.

use std::error::Error;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use io_uring::IoUring;
use uring_bpf_iter::{RegisteredBufs, UringBufIter, UringFileIter};

fn main() -> Result<(), Box<dyn Error>> {
    let ring = IoUring::new(8)?;
    let file = File::open("/proc/self/exe")?;
    let (socket, _peer) = UnixStream::pair()?;
    let submitter = ring.submitter();
    // A slot of -1 stays empty.
    submitter.register_files(&[file.as_raw_fd(), -1, socket.as_raw_fd()])?;
    submitter.register_buffers_sparse(4)?; // Linux 5.19

    let mut files = UringFileIter::attach(&ring)?;
    let descriptors = files.descriptors()?;
    let table = files.snapshot()?; // derefs to &[RegisteredFile]
    println!("read by {}, {}", table.backend(), table.consistency());
    for slot in &table {
        match slot.file() {
            Some(file) => println!(
                "file {}: {}, inode {}, descriptors {:?}",
                slot.index(),
                file.kind(),
                file.inode(),
                descriptors.of(file),
            ),
            None => println!("file {}: empty", slot.index()),
        }
    }

    let mut bufs = UringBufIter::attach(&ring)?;
    let table = bufs.snapshot()?; // derefs to &[RegisteredBuf]
    println!(
        "buffers: {} in {} slots",
        table.filled().count(),
        table.len()
    );
    Ok(())
}
