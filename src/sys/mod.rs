//! The only `unsafe` of the crate: BPF objects, memory shared with BPF
//! programs, and the process that waits for a lock in our place.
//!
//! Nothing here knows what a ring is, and all of it serves the BPF backends.

#![allow(unsafe_code)]

pub(crate) mod bpf;
mod fork;
pub(crate) mod link;
mod loader;
pub(crate) mod observer;
mod ret;
mod seccomp;
pub(crate) mod shared;
mod signals;
