//! The only `unsafe` of the crate: BPF objects, memory shared with BPF
//! programs, the process that waits for a lock in our place, and the comparison of
//! tasks.
//!
//! Nothing here knows what a ring is, and all of it but kcmp(2) serves the BPF backends.

#![allow(unsafe_code)]

#[cfg(feature = "bpf")]
pub(crate) mod bpf;
#[cfg(feature = "bpf")]
mod fork;
pub(crate) mod kcmp;
#[cfg(feature = "bpf")]
pub(crate) mod link;
#[cfg(feature = "bpf")]
mod loader;
#[cfg(feature = "bpf")]
pub(crate) mod observer;
#[cfg(feature = "bpf")]
mod ret;
#[cfg(feature = "bpf")]
mod seccomp;
#[cfg(feature = "bpf")]
pub(crate) mod shared;
#[cfg(feature = "bpf")]
mod signals;
