//! Rings with known contents, for the tests, the benchmark and the demo of
//! `uring-bpf-iter`.
//!
//! ```text
//! RingBuilder ──build()──▶ TestRing ──register…()──▶ expected()   the oracle
//!                             │ │
//!            Flapper::start ◀─┘ └─▶ LockHolder::hold
//!            (table never rests)    (uring_lock stays taken)
//!
//! Workload::spawn ──▶ the `workload` binary: the same in another process
//! ```
//!
//! Everything here asks the kernel through raw system calls and shares no code
//! with the crate under test: an oracle that used the tested decoder would
//! agree with its mistakes. It never submits a request: rings exist here to be
//! looked at.
#![deny(unsafe_code)]

mod buf;
mod builder;
pub mod demo;
pub mod fdinfo;
mod flapper;
mod lock;
mod ring;
#[allow(unsafe_code)]
mod sys;
mod uapi;
mod workload;

pub use buf::{ensure_huge_pages, free_huge_pages, BufSpec, Registered};
pub use builder::RingBuilder;
pub use flapper::{Flap, Flapper, States, View};
pub use lock::LockHolder;
pub use ring::TestRing;
pub use sys::{fork_holder, page_size, set_uid};
pub use workload::{IndexedBuf, Report, RingReport, Workload};
