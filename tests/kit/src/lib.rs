//! Rings with known contents, for the tests, the benchmark and the demo of
//! `uring-bpf-iter`.
//!
//! ```text
//! RingBuilder ──build()──▶ TestRing ──register…()──▶ expected()   the oracle
//!                             │ │
//!            Flapper::start ◀─┘ └─▶ LockHolder::hold
//!            (table never rests)    (uring_lock stays taken)
//!
//! TestRing::run(Request) ──▶ Done         one request, its completion, a limit
//! EpollSet ──add…()──▶ expected()         the same for epoll
//! IterProgram ──attach()──▶ IterLink ──open()──▶ IterSession
//!                                         BPF iterators by bare system calls
//! PipeWitness, Faults, and what the kernel says of its memory
//!
//! Workload::spawn ──▶ the `workload` binary: the same in another process
//! ```
//!
//! Everything here asks the kernel through raw system calls and shares no code
//! with the crate under test: an oracle that used the tested decoder would
//! agree with its mistakes. Rings exist here to be looked at: the few requests
//! that can be submitted are those that change what there is to see (a direct
//! descriptor, a buffer in use) or that look through the ring itself.
#![deny(unsafe_code)]

mod btf;
mod buf;
mod builder;
pub mod demo;
mod epoll;
mod fault;
pub mod fdinfo;
mod files;
mod flapper;
mod kmem;
mod lock;
mod ring;
mod session;
mod submit;
#[allow(unsafe_code)]
mod sys;
mod uapi;
mod ublk;
mod witness;
mod workload;

pub use buf::{ensure_huge_pages, free_huge_pages, BufSpec, Registered};
pub use builder::RingBuilder;
pub use epoll::{epoll_lines, EpollItem, EpollLine, EpollSet};
pub use fault::{Faults, Injected};
pub use files::{FileSlot, KnownFile};
pub use flapper::{Flap, Flapper, States, View};
pub use kmem::{
    grown_slabs, has_kasan, has_kmemleak, leaks, mount_debugfs, page_frames, pinned_pages,
    settled_pins, slab_objects,
};
pub use lock::LockHolder;
pub use ring::TestRing;
pub use session::{
    has_iterator, loaded_programs, own_links, words, BpfArray, IterLink, IterLinkInfo, IterProgram,
    IterSession, ProgramRuns,
};
pub use submit::{Done, Pending, Request};
pub use sys::{
    bpf_map, cpu_time, cpu_time_of_children, end_thread, fork_chain, fork_holder, fork_survivor,
    idle_priority, in_forked_child, interrupt_every, page_size, set_uid, signalfd, timerfd,
    unshare_descriptors, userfaultfd_of_nothing,
};
pub use ublk::KernelBuf;
pub use witness::PipeWitness;
pub use workload::{IndexedBuf, Report, RingReport, Workload};
