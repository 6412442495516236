//! How a ring is set up: the flags of io_uring_setup(2) by name.

use std::io;
use std::time::Duration;

use crate::buf::invalid;
use crate::ring::TestRing;
use crate::sys::{self, page_size, Mapping};
use crate::uapi::{self, Params};

/// Describes a ring; [`build`](Self::build) makes it.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct RingBuilder {
    entries: u32,
    params: Params,
    fdless: bool,
}

impl Default for RingBuilder {
    fn default() -> Self {
        Self::new(8)
    }
}

impl RingBuilder {
    /// A ring of `entries` submission entries (the kernel rounds up to a power
    /// of two) and twice as many completion entries.
    pub fn new(entries: u32) -> Self {
        Self {
            entries,
            params: Params::default(),
            fdless: false,
        }
    }

    /// Any other setup flags, by number.
    pub fn setup_flags(mut self, flags: u32) -> Self {
        self.params.flags |= flags;
        self
    }

    /// As many completion entries as given.
    pub fn cq_entries(mut self, entries: u32) -> Self {
        self.params.cq_entries = entries;
        self.setup_flags(uapi::SETUP_CQSIZE)
    }

    /// Completions are polled for.
    pub fn iopoll(self) -> Self {
        self.setup_flags(uapi::SETUP_IOPOLL)
    }

    /// A kernel thread submits, and sleeps after `idle` (whole milliseconds).
    /// It takes uring_lock now and then until it sleeps.
    pub fn sqpoll(mut self, idle: Duration) -> Self {
        self.params.sq_thread_idle = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX);
        self.setup_flags(uapi::SETUP_SQPOLL)
    }

    /// Only the thread that builds the ring (or enables it) may use it: the
    /// kernel answers EEXIST to another thread's registrations (6.0).
    pub fn single_issuer(self) -> Self {
        self.setup_flags(uapi::SETUP_SINGLE_ISSUER)
    }

    /// Task work waits for the issuer; implies
    /// [`single_issuer`](Self::single_issuer) (6.1).
    pub fn defer_taskrun(self) -> Self {
        self.single_issuer().setup_flags(uapi::SETUP_DEFER_TASKRUN)
    }

    /// Task work does not interrupt the task (5.19).
    pub fn coop_taskrun(self) -> Self {
        self.setup_flags(uapi::SETUP_COOP_TASKRUN)
    }

    /// Starts disabled; see [`TestRing::enable`] (5.10).
    pub fn disabled(self) -> Self {
        self.setup_flags(uapi::SETUP_R_DISABLED)
    }

    /// Submission entries of 128 bytes (5.19).
    pub fn sqe128(self) -> Self {
        self.setup_flags(uapi::SETUP_SQE128)
    }

    /// Completion entries of 32 bytes (5.19).
    pub fn cqe32(self) -> Self {
        self.setup_flags(uapi::SETUP_CQE32)
    }

    /// No descriptor at all: the ring lives in memory of the kit and in the
    /// registered rings of the building thread, the only one that can use it
    /// (NO_MMAP and REGISTERED_FD_ONLY, 6.5). Kernels before 6.14 want its
    /// parts in one page each: up to 64 entries.
    pub fn no_fd(mut self) -> Self {
        self.fdless = true;
        self
    }

    /// Makes the ring.
    ///
    /// # Errors
    /// What io_uring_setup(2) says: EINVAL for a flag or combination that this
    /// kernel does not know, ENOMEM, EPERM if io_uring is disabled.
    pub fn build(self) -> io::Result<TestRing> {
        let mut params = self.params;
        if self.fdless {
            let (rings, sqes) = self.caller_memory()?;
            let index = sys::setup_fdless(self.entries, &mut params, &rings, &sqes)?;
            Ok(TestRing::from_index(index, params, rings, sqes))
        } else {
            let fd = sys::setup(self.entries, &mut params)?;
            TestRing::from_fd(fd, params)
        }
    }

    /// Memory as large as the kernel will want for both parts of the ring.
    fn caller_memory(&self) -> io::Result<(Mapping, Mapping)> {
        let entries = self.entries.checked_next_power_of_two();
        let sq = entries.ok_or_else(|| invalid("too many entries"))? as usize;
        let cq = (self.params.cq_entries.next_power_of_two() as usize).max(2 * sq);
        // struct io_rings is 320 bytes in 6.18; 1024 leaves room, and 64
        // entries still fit into one page.
        let rings = 1024 + cq * cqe_size(&self.params) + sq * 4;
        let sqes = sq * sqe_size(&self.params);
        let page = page_size();
        let rings = Mapping::anonymous(rings.next_multiple_of(page))?;
        Ok((rings, Mapping::anonymous(sqes.next_multiple_of(page))?))
    }
}

pub(crate) fn cqe_size(params: &Params) -> usize {
    16 << u32::from(params.flags & uapi::SETUP_CQE32 != 0)
}

pub(crate) fn sqe_size(params: &Params) -> usize {
    64 << u32::from(params.flags & uapi::SETUP_SQE128 != 0)
}
