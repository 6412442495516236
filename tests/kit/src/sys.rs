//! The only `unsafe` of the kit: system calls behind safe functions. No policy:
//! what to register, when and why is decided elsewhere.

mod bpf;
mod file;
mod mem;
mod process;
mod ring;

use std::io;

pub use bpf::bpf_map;
pub(crate) use bpf::{
    array_clear, array_read, enable_stats, iter_create, link_create, link_info, link_update,
    map_info, pin, prog_load, prog_name, Insn,
};
pub(crate) use file::{
    duplicate, epoll_create, epoll_ctl, epoll_wait_into, file_flags, hung_up, pipe, replace,
    set_nonblocking,
};
pub use file::{signalfd, timerfd, userfaultfd_of_nothing};
pub use mem::page_size;
pub(crate) use mem::{readable, uffd_range, userfaultfd, Mapping};
pub use process::{
    cpu_time, cpu_time_of_children, end_thread, fork_chain, fork_holder, fork_survivor,
    idle_priority, in_forked_child, interrupt_every, set_uid, unshare_descriptors,
};
pub(crate) use process::{mount_debugfs, thread_id};
pub(crate) use ring::{
    clone_buffers, enter, probe, register_bare, register_buffers, register_files,
    register_files_tagged, register_ring, register_sparse, register_tagged, setup, setup_fdless,
    unregister_ring, update_buffers, update_files, Target,
};

/// The result of a system call: not negative, or what errno says.
fn check(result: libc::c_long) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
