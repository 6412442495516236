//! The only `unsafe` of the kit: system calls behind safe functions. No policy:
//! what to register, when and why is decided elsewhere.

mod mem;
mod process;
mod ring;

use std::io;

pub use mem::page_size;
pub(crate) use mem::{readable, uffd_range, userfaultfd, Mapping};
pub use process::{fork_holder, set_uid};
pub(crate) use ring::{
    clone_buffers, enter_getevents, probe, register_bare, register_buffers, register_files,
    register_sparse, register_tagged, setup, setup_fdless, unregister_ring, update_buffers, Target,
};

/// The result of a system call: not negative, or what errno says.
fn check(result: libc::c_long) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
