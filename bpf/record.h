/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Wire format between the BPF programs and src/record/: the single source of
 * truth. Every struct has explicit padding; sizes and offsets are asserted
 * here and, field by field, on the Rust side.
 */
#ifndef URING_RECORD_H
#define URING_RECORD_H

/* IORING_MAX_REG_BUFFERS, io_uring/rsrc.c, 5.13 to 7.2. */
#define MAX_BUFS 16384

/* Items of an epoll set that there is room for; the kernel has no such limit. */
#define MAX_ITEMS (1 << 20)

#define PAGES_UNKNOWN 0xffffffffu

enum buf_flags {
	BUF_FILLED = 1 << 0, /* the slot holds a buffer */
	BUF_KERNEL = 1 << 1, /* provided by the kernel, no user address */
	BUF_TAG_KNOWN = 1 << 2,
	BUF_ORIGIN_KNOWN = 1 << 3, /* BUF_KERNEL says something, set or clear */
};

enum buf_dir {
	BUF_DIR_DEST = 1 << 0, /* I/O may write into the buffer */
	BUF_DIR_SOURCE = 1 << 1, /* I/O may read from the buffer */
};

/* One slot of a ring's table of registered buffers. */
struct registered_buf {
	__u64 index;
	__u64 addr; /* user address, 0 for a kernel buffer */
	__u64 len; /* bytes */
	__u64 tag;
	__u32 nr_bvecs; /* 0: unknown */
	__u32 refs; /* tables and requests that use it, 0: unknown */
	__u32 acct_pages; /* charged to RLIMIT_MEMLOCK, or PAGES_UNKNOWN */
	__u8 bvec_shift; /* log2 of the bytes of a full segment, 0: unknown */
	__u8 page_shift; /* log2 of the bytes of a page */
	__u8 dir; /* enum buf_dir, 0: unknown */
	__u8 flags; /* enum buf_flags */
};

enum file_kind {
	FILE_NONE = 0, /* an empty slot */
	FILE_REGULAR = 1,
	FILE_DIRECTORY = 2,
	FILE_CHAR_DEVICE = 3,
	FILE_BLOCK_DEVICE = 4,
	FILE_PIPE = 5,
	FILE_SOCKET = 6,
	FILE_EVENTFD = 7,
	FILE_EPOLL = 8,
	FILE_IO_URING = 9,
	FILE_ANON_INODE = 10, /* of another kind than those above */
	FILE_OTHER = 11,
};

enum file_traits {
	FILE_DELETED = 1 << 0, /* the name that it was opened by is gone */
	FILE_INTERNAL = 1 << 1, /* of a file system that nobody mounts, so it has no name */
	FILE_NAMED = 1 << 2, /* size is 0, nlink is 1, and a name is in their place */
	FILE_OWN_DEVICE = 1 << 3, /* stat(2) has dev, too */
	FILE_MEMFD = 1 << 4,
	FILE_DMABUF = 1 << 5,
	FILE_SECRETMEM = 1 << 6,
	FILE_PIDFD = 1 << 7, /* of pidfs */
};

/*
 * What an open file is. The name of a file of anon_inodefs fills `detail` and `nlink`, and
 * is cut after these 12 bytes.
 */
struct file_identity {
	__u64 file; /* opaque: equal for equal files */
	__u64 inode;
	__s64 pos; /* bytes */
	__u64 detail; /* i_size; of a device i_rdev, of an eventfd its id */
	__u32 nlink;
	__u32 dev; /* of the file system: MAJOR << 20 | MINOR, as i_rdev */
	__u32 flags; /* O_* */
	__u16 mode; /* S_IF* and permissions of the inode */
	__u8 kind; /* enum file_kind */
	__u8 traits; /* enum file_traits */
};

/* One slot of a ring's table of registered files. */
struct registered_file {
	__u64 index;
	__u64 tag;
	struct file_identity file;
};

/* One descriptor of a process, as often as it has one. */
struct descriptor {
	__u64 file; /* as in file_identity */
	__u64 inode;
	__s32 fd;
	__u32 pad;
};

/* The path of a file. */
struct file_path {
	__s64 len; /* with the NUL, or a negative errno; 0: not asked */
	char text[4096];
};

/* One item of an epoll set. */
struct epoll_item {
	__u64 data;
	__s32 fd; /* as it was when the item was added */
	__u32 events; /* EPOLL* */
	struct file_identity file;
};

/* One physically contiguous piece of a registered buffer. */
struct segment {
	__u64 page; /* opaque: equal for equal pages */
	__u64 pfn; /* of the first page, 0: not permitted or not known */
	__u32 offset; /* bytes from the start of that page */
	__u32 len; /* bytes */
};

enum walk_mode {
	WALK_VERIFIED = 1, /* no lock; proves that nothing moved */
	WALK_RAW = 2, /* no lock, no proof */
	WALK_PEEK = 3, /* look at the lock's owner only */
	WALK_LOCKED = 4, /* from io_uring_register(2) or a native iterator, which hold the lock */
};

enum walk_status {
	WALK_NOT_FOUND = 0, /* the ring was not met */
	WALK_DONE = 1,
	WALK_CHANGED = 2, /* something moved: try again */
	WALK_LOCK_HELD = 3, /* uring_lock has an owner: try again */
	WALK_TOO_MANY = 4, /* nr_slots is more than there is room for */
	WALK_NOT_LOCKED = 5, /* this kernel's tracepoint fires after the unlock */
	WALK_CUT_SHORT = 6, /* the kernel ended the loop early */
	WALK_NO_SLOT = 7, /* the table has no slot of that index */
	WALK_NO_LOOKUP = 8, /* this kernel finds no task by its number in this pid namespace */
	WALK_UNSEEN = 9, /* not met, but the mappings could not be looked at: try again */
	WALK_ANOTHER = 10, /* another epoll set than the one that was wanted */
};

/* Each byte of what follows the last record of a stream. */
#define STREAM_END 0xff

/* What user space asks for. */
struct walk_request {
	__u64 inode; /* of the ring's file */
	__u64 slot; /* the buffer or file that is wanted, where it is one of a table */
	__u64 set; /* opaque: the epoll set that is wanted, or 0 */
	__u64 page_base; /* struct page of page frame 0, 0: not known or not permitted */
	__u64 pidns; /* the namespace of `observer`, as the walk has answered */
	__u32 mode; /* enum walk_mode */
	__u32 observer; /* WALK_LOCKED: pid of the observer ... */
	__u32 pidns_level; /* ... in its namespace, which is of this level */
	__u32 capacity; /* records that there is room for */
	__u32 tid; /* of a task that has it, in the reader's namespace */
	__u32 via; /* how that has it: enum holder_via ... */
	__u32 at; /* ... and under which number: descriptor or index */
	__u8 anywhere; /* however the task has it, and under whatever number */
	__u8 page_shift;
	__u8 cold; /* the table was not read a moment ago */
	__u8 pad;
};

/* What the walk answers. */
struct walk_reply {
	__u32 status; /* enum walk_status */
	__u32 nr_slots;
	__u64 owner; /* of uring_lock. Opaque: equal for equal owners, 0: free */
	__u32 owner_pid; /* in the reader's namespace, 0: not visible there */
	__u32 owner_tid;
	__u32 owner_sleeps; /* the owner is off the CPU, waiting */
	__u32 pidns_level; /* of the reader */
	__u64 pidns; /* of the reader, opaque */
	__u64 set; /* opaque: the epoll set that was met */
	__u32 tid; /* where it was met by a search, in the reader's namespace ... */
	__u32 via; /* ... enum holder_via */
	__u32 at; /* ... descriptor or index */
	__u32 pad;
	char owner_comm[16];
};

/* A one-page file of our own, to learn where the kernel keeps struct page. */
struct frame_request {
	__u64 inode;
	__s32 fd;
	__u32 pad;
};

struct frame_reply {
	__u64 page; /* that file's struct page, 0: not met */
	__u32 page_bytes; /* sizeof(struct page) */
	__u32 linear; /* all of them are one array, by page frame number */
};

enum holder_via {
	VIA_DESCRIPTOR = 0,
	VIA_REGISTERED = 1, /* IORING_REGISTER_RING_FDS or _REGISTERED_FD_ONLY */
	VIA_MAPPING = 2,
	VIA_UNSEEN = 3, /* no ring: this process's mappings could not be read */
	VIA_UNSEEN_FDS = 4, /* no ring: its descriptors changed all the while */
};

enum ring_flags {
	RING_SUM_VERIFIED = 1 << 0, /* pages and acct_pages are of one moment */
	RING_SQPOLL_THREAD = 1 << 1, /* sqpoll_tid is set */
	RING_CHARGED = 1 << 2, /* memory is charged to charged_uid */
	RING_ACCT_KNOWN = 1 << 3, /* acct_pages says something */
	RING_DESCRIBED = 1 << 4, /* more than the holder is set: once a ring and run */
};

struct ring_key {
	__u64 ring;
	__u64 inode;
};

/* One way in which a task holds a ring, with what the ring is. */
struct ring_sighting {
	__u64 ring; /* opaque: with the inode, equal for equal rings */
	__u64 files; /* opaque: equal for threads that share their descriptors */
	__u64 inode;
	__u64 pages; /* that the registered buffers touch */
	__u64 acct_pages;
	__u64 user_locked_pages; /* all that is charged to charged_uid */
	__u32 pid;
	__u32 tid;
	__s32 fd; /* or the index for VIA_REGISTERED, or -1 */
	__u32 via; /* enum holder_via */
	__u32 uid; /* effective, initial user namespace */
	__u32 creator_uid;
	__u32 charged_uid;
	__u32 setup_flags; /* IORING_SETUP_* */
	__u32 sq_entries;
	__u32 cq_entries;
	__u32 sq_head;
	__u32 sq_tail;
	__u32 cq_head;
	__u32 cq_tail;
	__u32 nr_bufs; /* slots, all bits set: in the middle of a change */
	__u32 nr_files;
	__u32 sqpoll_tid;
	__s32 sqpoll_cpu;
	__u32 flags; /* enum ring_flags */
	__u32 nr_filled; /* slots with a buffer */
	char comm[16]; /* of the process */
	char thread_comm[16]; /* of a thread that is not its leader */
	__u32 nr_files_filled; /* slots with a file, all bits set: not known */
	__u32 pad;
};

/* One descriptor by which a task holds an epoll set. */
struct epoll_sighting {
	__u64 set; /* opaque: equal for equal sets */
	__u64 files; /* opaque: equal for threads that share their descriptors */
	__u64 inode; /* of the file: all epoll sets share it */
	__u32 pid;
	__u32 tid;
	__s32 fd;
	__u32 via; /* VIA_DESCRIPTOR or VIA_UNSEEN_FDS */
	__u32 uid; /* effective, initial user namespace */
	__u32 pad;
	char comm[16]; /* as in ring_sighting */
	char thread_comm[16];
};

/* The ways of holding a ring that one walk over the tasks looks for. */
enum find_part {
	FIND_HELD = 0, /* descriptors, registered or not */
	FIND_MAPPED = 1,
};

/* What user space asks of the finder, and the answer. */
struct find_request {
	__u64 run; /* differs from that of every earlier run */
	__u8 page_shift;
	__u8 part; /* enum find_part */
	__u8 alone; /* one thread is looked at, also if it shares what it has */
	__u8 pad[5];
};

struct find_reply {
	__u64 nr; /* sightings, also those beyond the capacity of the map */
};

#ifndef __cplusplus
_Static_assert(sizeof(struct registered_buf) == 48, "wire format");
_Static_assert(sizeof(struct file_identity) == 48, "wire format");
_Static_assert(sizeof(struct registered_file) == 64, "wire format");
_Static_assert(__builtin_offsetof(struct registered_file, file.pos) == 32, "STABLE_WORDS");
_Static_assert(sizeof(struct descriptor) == 24, "wire format");
_Static_assert(sizeof(struct file_path) == 4104, "wire format");
_Static_assert(sizeof(struct epoll_item) == 64, "wire format");
_Static_assert(__builtin_offsetof(struct epoll_item, file.pos) == 32, "STABLE_WORDS");
_Static_assert(sizeof(struct segment) == 24, "wire format");
_Static_assert(sizeof(struct walk_request) == 72, "wire format");
_Static_assert(sizeof(struct walk_reply) == 80, "wire format");
_Static_assert(sizeof(struct frame_request) == 16, "wire format");
_Static_assert(sizeof(struct frame_reply) == 16, "wire format");
_Static_assert(sizeof(struct ring_sighting) == 168, "wire format");
_Static_assert(sizeof(struct epoll_sighting) == 80, "wire format");
_Static_assert(sizeof(struct find_request) == 16, "wire format");
_Static_assert(sizeof(struct find_reply) == 8, "wire format");
#endif

#endif
