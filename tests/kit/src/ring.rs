//! [`TestRing`]: a ring, the memory of its registered buffers, and the oracle
//! that says what its tables hold.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;
use std::thread::{self, ThreadId};

use crate::buf::{invalid, iovecs, BufSpec, Placed, Registered};
use crate::builder::{cqe_size, sqe_size};
use crate::files::KnownFile;
use crate::sys::{self, Mapping, Target};
use crate::uapi::{self, Params};

/// How this process reaches the ring.
#[derive(Debug)]
enum Handle {
    Fd(OwnedFd),
    /// Registered rings belong to a thread: the index means something else, or
    /// nothing, in every other one.
    Registered {
        index: u32,
        thread: ThreadId,
    },
    Mapping,
}

/// A ring whose contents are known.
///
/// Errors of its methods are those of io_uring_register(2), with their errno:
/// EBADF when nothing but a mapping is left, EEXIST from a thread that is not
/// the single issuer, ENOMEM at RLIMIT_MEMLOCK.
#[derive(Debug)]
pub struct TestRing {
    handle: Handle,
    pub(crate) params: Params,
    inode: Option<u64>,
    pub(crate) rings: Mapping,
    pub(crate) sqes: Mapping,
    bufs: Vec<Option<Registered>>,
    pub(crate) files: Vec<Option<KnownFile>>,
    /// Where the registered buffers lie.
    memory: Vec<Mapping>,
}

impl TestRing {
    pub(crate) fn from_fd(fd: OwnedFd, params: Params) -> io::Result<Self> {
        let sq = params.sq_off.array as usize + params.sq_entries as usize * 4;
        let cq = params.cq_off.cqes as usize + params.cq_entries as usize * cqe_size(&params);
        let rings = Mapping::of_ring(fd.as_fd(), sq.max(cq), uapi::OFF_SQ_RING)?;
        let sqes = params.sq_entries as usize * sqe_size(&params);
        let sqes = Mapping::of_ring(fd.as_fd(), sqes, uapi::OFF_SQES)?;
        let inode = File::from(fd.try_clone()?).metadata()?.ino();
        Ok(Self::new(Handle::Fd(fd), params, Some(inode), rings, sqes))
    }

    pub(crate) fn from_index(index: u32, params: Params, rings: Mapping, sqes: Mapping) -> Self {
        let thread = thread::current().id();
        Self::new(
            Handle::Registered { index, thread },
            params,
            None,
            rings,
            sqes,
        )
    }

    fn new(
        handle: Handle,
        params: Params,
        inode: Option<u64>,
        rings: Mapping,
        sqes: Mapping,
    ) -> Self {
        let (bufs, memory) = (Vec::new(), Vec::new());
        Self {
            handle,
            params,
            inode,
            rings,
            sqes,
            bufs,
            files: Vec::new(),
            memory,
        }
    }

    /// The descriptor, if the ring still has one.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.handle {
            Handle::Fd(fd) => Some(fd.as_fd()),
            Handle::Registered { .. } | Handle::Mapping => None,
        }
    }

    /// The number of the descriptor.
    ///
    /// # Panics
    /// If the ring has none.
    pub fn raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }

    /// The index in the registered rings of the thread that made it, for a ring
    /// without descriptor.
    pub fn registered_index(&self) -> Option<u32> {
        match self.handle {
            Handle::Registered { index, .. } => Some(index),
            Handle::Fd(_) | Handle::Mapping => None,
        }
    }

    /// The inode number of the ring's file, also after its descriptor was
    /// closed. A ring that never had one cannot be asked.
    pub fn inode(&self) -> Option<u64> {
        self.inode
    }

    /// Where the ring's own memory (struct io_rings) is mapped.
    pub fn mapping_addr(&self) -> u64 {
        self.rings.addr()
    }

    /// The setup flags which the kernel reported.
    pub fn flags(&self) -> u32 {
        self.params.flags
    }

    /// Submission entries.
    pub fn sq_entries(&self) -> u32 {
        self.params.sq_entries
    }

    /// Completion entries.
    pub fn cq_entries(&self) -> u32 {
        self.params.cq_entries
    }

    /// The oracle: every slot of the table of registered buffers, `None` where
    /// it is empty. No table and a table of no slots are both empty here.
    pub fn expected(&self) -> &[Option<Registered>] {
        &self.bufs
    }

    pub(crate) fn target(&self) -> io::Result<Target> {
        match &self.handle {
            Handle::Fd(fd) => Ok(fd.as_fd().into()),
            Handle::Registered { index, thread } if *thread == thread::current().id() => {
                Ok(Target::registered(*index))
            }
            Handle::Registered { .. } => Err(invalid("registered by another thread")),
            Handle::Mapping => Err(io::Error::from_raw_os_error(libc::EBADF)),
        }
    }

    /// Fills the table with IORING_REGISTER_BUFFERS, which knows no tags.
    ///
    /// # Errors
    /// EBUSY if there is a table; `InvalidInput` for a spec with a tag.
    pub fn register(&mut self, specs: &[BufSpec]) -> io::Result<()> {
        if specs.iter().any(|spec| spec.tag != 0) {
            return Err(invalid(
                "IORING_REGISTER_BUFFERS knows no tags: use register_tagged",
            ));
        }
        let placed = Placed::new(&some(specs))?;
        sys::register_buffers(self.target()?, &placed.iovecs())?;
        self.adopt(placed);
        Ok(())
    }

    /// Fills the table with IORING_REGISTER_BUFFERS2 (5.13).
    ///
    /// # Errors
    /// EBUSY if there is a table.
    pub fn register_tagged(&mut self, specs: &[BufSpec]) -> io::Result<()> {
        let placed = Placed::new(&some(specs))?;
        sys::register_tagged(self.target()?, &placed.iovecs(), &placed.tags())?;
        self.adopt(placed);
        Ok(())
    }

    /// Fills the table with memory that somebody else keeps mapped, say the
    /// buffers of another ring or parts of them. The table does not keep it.
    ///
    /// # Errors
    /// EBUSY if there is a table, EFAULT if nothing is mapped there.
    pub fn register_foreign(&mut self, bufs: &[Registered]) -> io::Result<()> {
        let slots: Vec<_> = bufs
            .iter()
            .map(|buf| Some(Registered { tag: 0, ..*buf }))
            .collect();
        sys::register_buffers(self.target()?, &iovecs(&slots))?;
        self.bufs = slots;
        Ok(())
    }

    /// Makes a table of `slots` empty slots (5.19).
    ///
    /// # Errors
    /// EBUSY if there is a table.
    pub fn register_sparse(&mut self, slots: u32) -> io::Result<()> {
        sys::register_sparse(self.target()?, uapi::REGISTER_BUFFERS2, slots)?;
        self.bufs = vec![None; slots as usize];
        Ok(())
    }

    /// Replaces slots from `index` on by one IORING_REGISTER_BUFFERS_UPDATE;
    /// `None` empties a slot. The old memory stays mapped.
    ///
    /// # Errors
    /// ENXIO without a table, EINVAL beyond its end.
    pub fn update(&mut self, index: u32, specs: &[Option<BufSpec>]) -> io::Result<()> {
        let placed = Placed::new(specs)?;
        let (iovecs, tags) = (placed.iovecs(), placed.tags());
        let done = sys::update_buffers(self.target()?, index, &iovecs, &tags)?;
        let Placed { slots, maps } = placed;
        // The kernel stops at the first slot it refuses: what was done holds.
        for (slot, new) in self.bufs[index as usize..].iter_mut().zip(&slots[..done]) {
            *slot = *new;
        }
        self.memory.extend(maps);
        if done < specs.len() {
            let text = format!("the kernel updated {done} of {} slots", specs.len());
            return Err(io::Error::other(text));
        }
        Ok(())
    }

    /// Gives the table back and unmaps its memory.
    ///
    /// # Errors
    /// ENXIO without a table.
    pub fn unregister(&mut self) -> io::Result<()> {
        sys::register_bare(self.target()?, uapi::UNREGISTER_BUFFERS)?;
        self.bufs.clear();
        self.memory.clear();
        Ok(())
    }

    /// Shares the registered buffers of `source` (6.12). Tags do not come
    /// along; the memory stays that of `source`.
    ///
    /// # Errors
    /// EBUSY if this ring has a table, ENXIO if `source` has none, EINVAL on an
    /// older kernel.
    pub fn clone_buffers_from(&mut self, source: &TestRing) -> io::Result<()> {
        sys::clone_buffers(self.target()?, source.target()?)?;
        let untagged = |slot: &Option<Registered>| slot.map(|buf| Registered { tag: 0, ..buf });
        self.bufs = source.bufs.iter().map(untagged).collect();
        Ok(())
    }

    /// Enables a ring built [`disabled`](crate::RingBuilder::disabled): the
    /// calling thread becomes the single issuer, if there is to be one.
    ///
    /// # Errors
    /// EBADFD if it is enabled already.
    pub fn enable(&self) -> io::Result<()> {
        sys::register_bare(self.target()?, uapi::REGISTER_ENABLE_RINGS)
    }

    /// Unmaps the memory of the registered buffers, which stay registered: the
    /// ring alone keeps their pages.
    pub fn drop_mapping(&mut self) {
        self.memory.clear();
    }

    /// Closes the descriptor: what is left of the ring in this process is the
    /// mapping of its memory, which keeps the ring alive.
    pub fn close_fd_keep_mapping(&mut self) {
        self.release_handle();
        self.handle = Handle::Mapping;
    }

    /// Closes the descriptor and unmaps the memory: what is left of the ring is
    /// its place in the registered rings of this thread (5.18). Before 6.3 it
    /// is given back when the thread ends.
    ///
    /// # Errors
    /// EBUSY if the thread has 16 of them.
    pub fn close_fd_keep_registered(&mut self) -> io::Result<()> {
        let index = sys::register_ring(self.as_fd())?;
        self.rings = Mapping::anonymous(self.rings.size())?;
        self.sqes = Mapping::anonymous(self.sqes.size())?;
        let thread = thread::current().id();
        self.handle = Handle::Registered { index, thread };
        Ok(())
    }

    /// Throws away all completions posted so far and says how many.
    pub fn drain(&self) -> u32 {
        let head = self.rings.atomic_u32(self.params.cq_off.head);
        let tail = self.rings.atomic_u32(self.params.cq_off.tail);
        let flags = self.rings.atomic_u32(self.params.sq_off.flags);
        let mut drained = 0;
        loop {
            let posted = tail.load(Ordering::Acquire);
            drained += posted.wrapping_sub(head.swap(posted, Ordering::Release));
            // What found no room waits in a list of the kernel, which grows
            // until someone asks for it.
            let overflowed = flags.load(Ordering::Relaxed) & uapi::SQ_CQ_OVERFLOW != 0;
            let flush = || self.target().and_then(|ring| sys::enter(ring, 0));
            if !overflowed || flush().is_err() {
                return drained;
            }
        }
    }

    /// Takes over freshly registered memory as the whole table.
    fn adopt(&mut self, placed: Placed) {
        self.bufs = placed.slots;
        self.memory.extend(placed.maps);
    }

    /// For one who changes the table behind the oracle's back.
    pub(crate) fn set_expected(&mut self, bufs: Vec<Option<Registered>>, maps: Vec<Mapping>) {
        self.bufs = bufs;
        self.memory.extend(maps);
    }

    fn release_handle(&self) {
        let Handle::Registered { index, thread } = self.handle else {
            return;
        };
        // From another thread the index would name a stranger's ring; there the
        // kernel gives the ring back when its thread ends.
        if thread == thread::current().id() {
            let _already_gone = sys::unregister_ring(index);
        }
    }
}

impl Drop for TestRing {
    fn drop(&mut self) {
        self.release_handle();
    }
}

impl AsFd for TestRing {
    /// # Panics
    /// If the ring has no descriptor; see [`TestRing::fd`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd().expect("this ring has no descriptor")
    }
}

fn some(specs: &[BufSpec]) -> Vec<Option<BufSpec>> {
    specs.iter().copied().map(Some).collect()
}
