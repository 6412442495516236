//! The parts of `linux/io_uring.h`, `linux/userfaultfd.h` and
//! `linux/ublk_cmd.h` that the kit needs, written out: the headers of Debian 12 (6.1) lack half of them. Data
//! only, no system call.

pub(crate) const SETUP_IOPOLL: u32 = 1 << 0;
pub(crate) const SETUP_SQPOLL: u32 = 1 << 1;
pub(crate) const SETUP_CQSIZE: u32 = 1 << 3;
pub(crate) const SETUP_R_DISABLED: u32 = 1 << 6;
pub(crate) const SETUP_COOP_TASKRUN: u32 = 1 << 8;
pub(crate) const SETUP_SQE128: u32 = 1 << 10;
pub(crate) const SETUP_CQE32: u32 = 1 << 11;
pub(crate) const SETUP_SINGLE_ISSUER: u32 = 1 << 12;
pub(crate) const SETUP_DEFER_TASKRUN: u32 = 1 << 13;
pub(crate) const SETUP_NO_MMAP: u32 = 1 << 14;
pub(crate) const SETUP_REGISTERED_FD_ONLY: u32 = 1 << 15;

pub(crate) const OFF_SQ_RING: i64 = 0;
pub(crate) const OFF_SQES: i64 = 0x1000_0000;

/// In the flags of the submission ring: completions wait in an overflow list.
pub(crate) const SQ_CQ_OVERFLOW: u32 = 1 << 1;
pub(crate) const ENTER_GETEVENTS: u32 = 1 << 0;
pub(crate) const ENTER_SQ_WAKEUP: u32 = 1 << 1;
pub(crate) const ENTER_REGISTERED_RING: u32 = 1 << 4;

pub(crate) const REGISTER_BUFFERS: u32 = 0;
pub(crate) const UNREGISTER_BUFFERS: u32 = 1;
pub(crate) const REGISTER_FILES: u32 = 2;
pub(crate) const UNREGISTER_FILES: u32 = 3;
pub(crate) const REGISTER_PROBE: u32 = 8;
pub(crate) const REGISTER_ENABLE_RINGS: u32 = 12;
pub(crate) const REGISTER_FILES2: u32 = 13;
pub(crate) const REGISTER_FILES_UPDATE2: u32 = 14;
pub(crate) const REGISTER_BUFFERS2: u32 = 15;
pub(crate) const REGISTER_BUFFERS_UPDATE: u32 = 16;
pub(crate) const REGISTER_RING_FDS: u32 = 20;
pub(crate) const UNREGISTER_RING_FDS: u32 = 21;
pub(crate) const REGISTER_CLONE_BUFFERS: u32 = 30;
/// Or-ed to an opcode: the descriptor is an index of the calling task's
/// registered rings (6.3).
pub(crate) const REGISTER_USE_REGISTERED_RING: u32 = 1 << 31;

pub(crate) const RSRC_REGISTER_SPARSE: u32 = 1 << 0;
pub(crate) const CLONE_SRC_REGISTERED: u32 = 1 << 0;

pub(crate) const OP_READ_FIXED: u8 = 4;
pub(crate) const OP_TIMEOUT: u8 = 11;
pub(crate) const OP_OPENAT: u8 = 18;
pub(crate) const OP_READ: u8 = 22;
pub(crate) const OP_URING_CMD: u8 = 46;
pub(crate) const SQE_FIXED_FILE: u8 = 1 << 0;
pub(crate) const SQE_ASYNC: u8 = 1 << 4;

/// What the kit puts into a `struct io_uring_sqe`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sqe {
    pub(crate) opcode: u8,
    pub(crate) flags: u8,
    pub(crate) fd: i32,
    pub(crate) off: u64,
    pub(crate) addr: u64,
    pub(crate) len: u32,
    /// `rw_flags`, `open_flags` and so on.
    pub(crate) op_flags: u32,
    pub(crate) user_data: u64,
    pub(crate) buf_index: u16,
    /// The slot for a direct descriptor, counted from 1.
    pub(crate) file_index: u32,
    /// Of IORING_OP_URING_CMD: what the driver is told. More than 16 bytes take
    /// a ring of 128-byte entries.
    pub(crate) cmd: [u8; 32],
}

impl Sqe {
    /// The bytes, as the words in which they are written to a ring: 16, or
    /// twice as many.
    pub(crate) fn words(&self) -> [u32; 32] {
        let mut bytes = [0; 128];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &[self.opcode, self.flags]);
        put(4, &self.fd.to_ne_bytes());
        put(8, &self.off.to_ne_bytes());
        put(16, &self.addr.to_ne_bytes());
        put(24, &self.len.to_ne_bytes());
        put(28, &self.op_flags.to_ne_bytes());
        put(32, &self.user_data.to_ne_bytes());
        put(40, &self.buf_index.to_ne_bytes());
        put(44, &self.file_index.to_ne_bytes());
        put(48, &self.cmd);
        std::array::from_fn(|i| {
            let word = &bytes[4 * i..4 * i + 4];
            u32::from_ne_bytes(word.try_into().expect("four bytes"))
        })
    }
}

/// `struct io_sqring_offsets`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SqOffsets {
    pub(crate) head: u32,
    pub(crate) tail: u32,
    pub(crate) ring_mask: u32,
    pub(crate) ring_entries: u32,
    pub(crate) flags: u32,
    pub(crate) dropped: u32,
    pub(crate) array: u32,
    pub(crate) resv1: u32,
    pub(crate) user_addr: u64,
}

/// `struct io_cqring_offsets`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CqOffsets {
    pub(crate) head: u32,
    pub(crate) tail: u32,
    pub(crate) ring_mask: u32,
    pub(crate) ring_entries: u32,
    pub(crate) overflow: u32,
    pub(crate) cqes: u32,
    pub(crate) flags: u32,
    pub(crate) resv1: u32,
    pub(crate) user_addr: u64,
}

/// `struct io_uring_params`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Params {
    pub(crate) sq_entries: u32,
    pub(crate) cq_entries: u32,
    pub(crate) flags: u32,
    pub(crate) sq_thread_cpu: u32,
    pub(crate) sq_thread_idle: u32,
    pub(crate) features: u32,
    pub(crate) wq_fd: u32,
    pub(crate) resv: [u32; 3],
    pub(crate) sq_off: SqOffsets,
    pub(crate) cq_off: CqOffsets,
}

/// `struct iovec`, with an address that is a number: the kit never looks
/// through it, and a table of pointers would not be `Send`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct IoVec {
    pub(crate) base: u64,
    pub(crate) len: u64,
}

/// `struct io_uring_rsrc_register`.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct RsrcRegister {
    pub(crate) nr: u32,
    pub(crate) flags: u32,
    pub(crate) resv2: u64,
    pub(crate) data: u64,
    pub(crate) tags: u64,
}

/// `struct io_uring_rsrc_update2`, whose first 16 bytes are
/// `struct io_uring_rsrc_update`.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct RsrcUpdate2 {
    pub(crate) offset: u32,
    pub(crate) resv: u32,
    pub(crate) data: u64,
    pub(crate) tags: u64,
    pub(crate) nr: u32,
    pub(crate) resv2: u32,
}

/// `struct io_uring_clone_buffers` (6.12 has the first two fields).
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct CloneBuffers {
    pub(crate) src_fd: u32,
    pub(crate) flags: u32,
    pub(crate) src_off: u32,
    pub(crate) dst_off: u32,
    pub(crate) nr: u32,
    pub(crate) pad: [u32; 3],
}

pub(crate) const UFFDIO_API: u64 = 0xc018_aa3f;
pub(crate) const UFFDIO_REGISTER: u64 = 0xc020_aa00;
pub(crate) const UFFDIO_ZEROPAGE: u64 = 0xc020_aa04;
pub(crate) const UFFD_API: u64 = 0xaa;
pub(crate) const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;
pub(crate) const UFFD_EVENT_PAGEFAULT: u8 = 0x12;
/// `sizeof(struct uffd_msg)`.
pub(crate) const UFFD_MSG_LEN: usize = 32;

/// `struct uffdio_api`.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct UffdioApi {
    pub(crate) api: u64,
    pub(crate) features: u64,
    pub(crate) ioctls: u64,
}

/// `struct uffdio_register` and `struct uffdio_zeropage`: the same four words.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct UffdioRange {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) mode: u64,
    pub(crate) out: u64,
}

pub(crate) const UBLK_F_SUPPORT_ZERO_COPY: u64 = 1 << 0;
pub(crate) const UBLK_F_IOCTL_ENCODE: u64 = 1 << 6;
pub(crate) const UBLK_F_AUTO_BUF_REG: u64 = 1 << 11;
pub(crate) const UBLK_F_NO_AUTO_PART_SCAN: u64 = 1 << 18;

/// `_IOWR('u', number, a struct of so many bytes)`.
const fn ublk(direction: u32, number: u32, size: usize) -> u32 {
    direction << 30 | (size as u32) << 16 | (b'u' as u32) << 8 | number
}
pub(crate) const UBLK_ADD_DEV: u32 = ublk(3, 0x04, 32);
pub(crate) const UBLK_START_DEV: u32 = ublk(3, 0x06, 32);
pub(crate) const UBLK_STOP_DEV: u32 = ublk(3, 0x07, 32);
pub(crate) const UBLK_SET_PARAMS: u32 = ublk(3, 0x08, 32);
/// `_IOR`. It does not wait for the last descriptor of the device.
pub(crate) const UBLK_DEL_DEV_ASYNC: u32 = ublk(2, 0x14, 32);
pub(crate) const UBLK_FETCH: u32 = ublk(3, 0x20, 16);
pub(crate) const UBLK_COMMIT_AND_FETCH: u32 = ublk(3, 0x21, 16);

/// `struct ublksrv_ctrl_cmd`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UblkCommand {
    pub(crate) dev_id: u32,
    pub(crate) queue_id: u16,
    pub(crate) len: u16,
    pub(crate) addr: u64,
    pub(crate) data: u64,
}

impl UblkCommand {
    pub(crate) fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[0..4].copy_from_slice(&self.dev_id.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.queue_id.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.len.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.addr.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.data.to_ne_bytes());
        bytes
    }
}

/// `struct ublksrv_io_cmd`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UblkIo {
    pub(crate) q_id: u16,
    pub(crate) tag: u16,
    pub(crate) result: i32,
    pub(crate) addr: u64,
}

impl UblkIo {
    /// As they are put into `cmd` of an entry.
    pub(crate) fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[0..2].copy_from_slice(&self.q_id.to_ne_bytes());
        bytes[2..4].copy_from_slice(&self.tag.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.result.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.addr.to_ne_bytes());
        bytes
    }
}

/// What the kit puts into a `struct ublksrv_ctrl_dev_info`.
#[derive(Debug, Default)]
pub(crate) struct UblkDevice {
    pub(crate) nr_hw_queues: u16,
    pub(crate) queue_depth: u16,
    pub(crate) max_io_buf_bytes: u32,
    pub(crate) dev_id: u32,
    pub(crate) ublksrv_pid: i32,
    pub(crate) flags: u64,
}

impl UblkDevice {
    pub(crate) fn bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[0..2].copy_from_slice(&self.nr_hw_queues.to_ne_bytes());
        bytes[2..4].copy_from_slice(&self.queue_depth.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.max_io_buf_bytes.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.dev_id.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.ublksrv_pid.to_ne_bytes());
        bytes[24..32].copy_from_slice(&self.flags.to_ne_bytes());
        bytes
    }

    /// What the driver has made of it.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let word = |at: usize| bytes[at..at + 4].try_into().expect("four bytes");
        let flags = bytes[24..32].try_into().expect("eight bytes");
        Self {
            dev_id: u32::from_ne_bytes(word(12)),
            flags: u64::from_ne_bytes(flags),
            ..Self::default()
        }
    }
}

/// What the kit puts into a `struct ublk_params`: of its first part.
#[derive(Debug)]
pub(crate) struct UblkParams {
    pub(crate) logical_bs_shift: u8,
    pub(crate) physical_bs_shift: u8,
    pub(crate) io_opt_shift: u8,
    pub(crate) io_min_shift: u8,
    pub(crate) max_sectors: u32,
    pub(crate) dev_sectors: u64,
}

impl UblkParams {
    pub(crate) fn bytes(&self) -> [u8; 40] {
        let mut bytes = [0; 40];
        let (len, types) = (bytes.len() as u32, 1_u32);
        bytes[0..4].copy_from_slice(&len.to_ne_bytes());
        bytes[4..8].copy_from_slice(&types.to_ne_bytes());
        bytes[12] = self.logical_bs_shift;
        bytes[13] = self.physical_bs_shift;
        bytes[14] = self.io_opt_shift;
        bytes[15] = self.io_min_shift;
        bytes[16..20].copy_from_slice(&self.max_sectors.to_ne_bytes());
        bytes[24..32].copy_from_slice(&self.dev_sectors.to_ne_bytes());
        bytes
    }
}

const _: () = {
    assert!(size_of::<Params>() == 120);
    assert!(size_of::<RsrcRegister>() == 32);
    assert!(size_of::<RsrcUpdate2>() == 32);
    assert!(size_of::<CloneBuffers>() == 32);
    assert!(size_of::<UffdioApi>() == 24);
    assert!(size_of::<UffdioRange>() == 32);
    // UFFDIO numbers carry the size of their argument in bits 16-29.
    assert!((UFFDIO_API >> 16) & 0x3fff == 24);
    assert!((UFFDIO_REGISTER >> 16) & 0x3fff == 32);
};
