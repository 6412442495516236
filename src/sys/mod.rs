//! The only `unsafe` of the crate: BPF objects, memory shared with BPF
//! programs, and the process that waits for a lock in our place.
//!
//! Nothing here knows what a ring is.

#![allow(unsafe_code)]

#[cfg(feature = "bpf")]
pub(crate) mod bpf;
#[cfg(feature = "bpf")]
mod fork;
#[cfg(feature = "bpf")]
mod loader;
#[cfg(feature = "bpf")]
pub(crate) mod observer;
#[cfg(feature = "bpf")]
pub(crate) mod shared;
#[cfg(feature = "bpf")]
mod signals;
