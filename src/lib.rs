//! Safe, typed, zero-copy access to what lives inside io_uring instances: the
//! rings of a machine and the tasks that hold them, their registered buffers with
//! the pages that they pin, and their registered files; and the items of epoll
//! sets.
//!
//! No kernel patch is needed: on Linux 6.1 and later a BPF program reads the
//! tables in place ([`Backend::TaskFile`]). On a kernel with the patches in
//! kernel/ its own iterators do, under the lock ([`Backend::Native`]). Where
//! BPF may not be used, the text of `/proc/PID/fdinfo/FD` serves, with fewer
//! fields ([`Backend::Fdinfo`]).
//!
//! ```text
//!  RingFinder ──find──▶ any Ring ──────────▶ UringBufReader  ──snapshot──▶ Snapshot<'_, R>
//!                                            UringFileReader                derefs to &[R]
//!                       one Ring ──attach_ring──▶ UringBufIter  ──snapshot──▶ the same
//!                    your own fd ──attach──────▶ UringFileIter
//!                      (pid, fd) ──attach_pid──┘
//!  EpollFinder ─find──▶ any EpollSet ─────▶ EpollReader     ──snapshot──▶ the same
//!                                                Link<R> ──records──▶ Records<R> ──next_batch──▶ &[R]
//! ```
//!
//! ```no_run
//! use uring_bpf_iter::{RegisteredBufs, RingFinder, UringBufReader};
//!
//! # fn main() -> uring_bpf_iter::Result<()> {
//! let mut reader = UringBufReader::new();
//! for ring in &RingFinder::new()?.find_all()? {
//!     let bufs = reader.snapshot(ring)?;
//!     println!("ring {}: {} bytes pinned", ring.inode, bufs.pinned_bytes());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Consistency
//!
//! A [`Snapshot`] always says how far its records belong together
//! ([`Consistency`]), and torn records are never handed out as good: if a ring is
//! too busy for a consistent view, the error is [`Error::Contended`], after which
//! the call can be repeated ([`Error::is_retryable`]).
//!
//! # Privilege
//!
//! [`Backend::TaskFile`] takes `CAP_BPF` and `CAP_PERFMON`, or
//! `CAP_SYS_ADMIN`, in the initial user namespace. [`Backend::Fdinfo`] takes
//! none for processes of the same user. Without a choice the best backend that
//! works is used; [`UringBufIter::selection`] names it, and what the others lack.
//!
//! # Features
//!
//! - `bpf` (default): the BPF backends, through libbpf. They need libelf and zlib
//!   to build. Without this feature the crate needs no native library; every item
//!   still exists, and [`Backend::Fdinfo`] is the only backend that is not refused
//!   ([`Reason::NotBuilt`]).
//! - `io-uring`: lets [`UringBufIter::attach`] take an
//!   `io_uring::IoUring` of the crate `io-uring` 0.7 (its feature `io_safety`).
//! - `serde`: `Serialize` for rings, records and what they hold, with the keys that
//!   README.md lists.
//! - `vendored`: builds libelf and zlib from source as well.
//! - `static`: links libbpf, libelf and zlib statically.

#![deny(unsafe_code)]
// A build without BPF does not use what serves BPF alone.
#![cfg_attr(not(feature = "bpf"), allow(dead_code))]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod backend;
mod choice;
mod epoll;
mod error;
mod find;
mod iter;
mod kernel;
mod link;
mod locator;
mod names;
mod pidfd;
mod record;
mod retry;
mod ring;
#[cfg(feature = "serde")]
mod serialize;
mod sys;
mod tasks;

pub use backend::facts::LinkInfo;
pub use backend::{Record, RingRecord};
pub use choice::{Backend, Capability, Reason, Refusal, Selection, UnknownBackend};
pub use epoll::{EpollSet, EpollSurvey};
pub use error::{Contention, Error, Limitation, LockOwner, Operation, Permission, Result};
pub use find::{EpollFinder, RingFinder};
pub use iter::{
    BufPages, DescriptorReader, Descriptors, EpollIter, EpollReader, NumberNow, Options,
    UringBufIter, UringBufReader, UringFileIter, UringFileReader, UringIter, UringReader,
};
pub use link::{Link, Records};
pub use record::{
    BufFields, Consistency, Direction, EpollEvents, EpollItem, FileFlags, FileIdentity, FileKind,
    RegisteredBuf, RegisteredBufs, RegisteredFile, Segment, Snapshot,
};
pub use retry::Retry;
pub use ring::{
    Charged, Holder, Pinned, Queue, Ring, SetupFlags, SqPoll, Survey, Unseen, UnseenReason, Via,
};
