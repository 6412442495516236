/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a ring is made of, for any kernel from 6.1 on: the one place where
 * kernel versions differ. Nothing here decides or walks.
 *
 * A pointer to a ring comes out of file->private_data, so the verifier knows
 * no type for it. `direct` says how to load through such pointers: true for a
 * plain load (bpf_rdonly_cast, 6.2 on; a fault reads as 0), false for
 * bpf_probe_read_kernel. It is always a literal.
 */
#ifndef URING_RING_H
#define URING_RING_H

#include "core.h"
#include "record.h"

extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

#define CAST(type, ptr) ((type *)bpf_rdonly_cast((ptr), bpf_core_type_id_kernel(type)))

/* A number as what it points to, for FIELD(): as good as free, but clang keeps
 * nothing in registers over it.
 */
#define AS(direct, type, ptr) ((direct) ? CAST(type, (void *)(ptr)) : (type *)(ptr))

/* A field of what AS() has given, or the iterator itself. */
#define FIELD(direct, ptr, field)                                        \
	({                                                               \
		typeof((ptr)->field) __v;                                \
		if (direct)                                              \
			__v = (ptr)->field;                              \
		else                                                     \
			bpf_core_read(&__v, sizeof(__v), &(ptr)->field); \
		__v;                                                     \
	})

/* `ptr` is a number, not an expression that looks into a struct of ours. */
#define LOAD(direct, type, ptr, field)                 \
	({                                             \
		type *__p = AS((direct), type, (ptr)); \
		FIELD((direct), __p, field);           \
	})

/* The i-th pointer of an array of pointers in kernel memory. */
static __always_inline u64 pointer_at(const bool direct, u64 array, u64 i)
{
	u64 p = 0;

	/* struct rb_root: a kernel type that begins with a pointer. */
	if (direct)
		return (u64)CAST(struct rb_root, (void *)(array + i * sizeof(p)))->rb_node;
	bpf_probe_read_kernel(&p, sizeof(p), (void *)(array + i * sizeof(p)));
	return p;
}

/* The i-th number of an array of u64 in kernel memory. */
static __always_inline u64 number_at(const bool direct, u64 array, u64 i)
{
	/* struct io_mapped_ubuf: a kernel type that begins with a u64. */
	return LOAD(direct, struct io_mapped_ubuf, array + i * sizeof(u64), ubuf);
}

union anon_name {
	char text[16];
	u64 word[2];
};

/* By name, and by the file system that no one can mount. */
#define is_anon_file(direct, file, literal)                                                   \
	({                                                                                    \
		const union anon_name __want = { .text = literal };                           \
		union anon_name __name = {};                                                  \
		has_anon_name((direct), (file), &__name, sizeof(literal)) &&                  \
			__name.word[0] == __want.word[0] && __name.word[1] == __want.word[1]; \
	})

/* The first bytes of the name of a file in anon_inodefs; false elsewhere. */
static __always_inline bool has_anon_name(const bool direct, u64 file, union anon_name *name,
					  u32 len)
{
	struct file *f = AS(direct, struct file, file);
	struct inode *inode = FIELD(direct, f, f_inode);
	struct super_block *sb = FIELD(direct, inode, i_sb);
	struct dentry *dentry;

	if (FIELD(direct, sb, s_magic) != ANON_INODE_FS_MAGIC)
		return false;
	dentry = FIELD(direct, f, f_path.dentry);
	return !bpf_probe_read_kernel(name->text, len, FIELD(direct, dentry, d_name.name));
}

static __always_inline bool is_ring(const bool direct, u64 file)
{
	return is_anon_file(direct, file, "[io_uring]");
}

static __always_inline u64 inode_of(const bool direct, u64 file)
{
	struct file *f = AS(direct, struct file, file);
	struct inode *inode = FIELD(direct, f, f_inode);

	return FIELD(direct, inode, i_ino);
}

/* As a plain number: newer verifiers would type what a direct load gives. */
static __always_inline u64 ring_of(u64 file)
{
	return (u64)LOAD(false, struct file, file, private_data);
}

/*
 * The number of a task in the pid namespace of the reader, and which that is, opaque.
 * The iterators only show tasks that have one. In one place, and without a look into
 * struct pid_namespace: of that and struct pid the kernel remembers only the one that
 * it has met last when a loader asks for it (hash_cands(), kernel/bpf/btf.c), and
 * looks through all types for the other.
 */
static __noinline __attribute__((unused)) u32 pid_nr_at(struct task_struct *task, u32 level,
							u64 *ns)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	u32 nr = 0;
	u64 upid;

	*ns = 0;
	if (!pid || BPF_CORE_READ(pid, level) < level)
		return 0;
	upid = (u64)pid + bpf_core_field_offset(struct pid, numbers) +
	       level * bpf_core_type_size(struct upid);
	bpf_probe_read_kernel(&nr, sizeof(nr),
			      (void *)upid + bpf_core_field_offset(struct upid, nr));
	bpf_probe_read_kernel(ns, sizeof(*ns),
			      (void *)upid + bpf_core_field_offset(struct upid, ns));
	return nr;
}

static __always_inline u32 reader_level(void)
{
	struct task_struct *me = (void *)bpf_get_current_task();

	return BPF_CORE_READ(me, thread_pid, level);
}

/*
 * Who holds the mutex `member` of a structure, 0 for nobody. The low bits of
 * mutex.owner are flags (kernel/locking/mutex.h); of an rt_mutex one is
 * (kernel/locking/rtmutex.c).
 */
#define mutex_owner(direct, type, ptr, member)                               \
	(bpf_core_field_exists(type, member.owner)                           \
		 ? LOAD((direct), type, (ptr), member.owner.counter) & ~7ULL \
		 : (u64)LOAD((direct), type##___rt, (ptr), member.rtmutex.owner) & ~1ULL)

/* Who holds uring_lock. */
static __always_inline u64 lock_owner(const bool direct, u64 ctx)
{
	return mutex_owner(direct, struct io_ring_ctx, ctx, uring_lock);
}

/* Where the registered buffers of a ring are. */
struct table {
	u64 slots; /* array of nodes (6.13 on) or of buffers */
	u64 tags; /* up to 6.12: array of pages of tags */
	u32 nr;
};

static __always_inline void load_table(const bool direct, u64 ctx, struct table *t)
{
	if (bpf_core_field_exists(struct io_ring_ctx___v613, buf_table)) {
		struct io_ring_ctx___v613 *ring = AS(direct, struct io_ring_ctx___v613, ctx);

		t->nr = FIELD(direct, ring, buf_table.nr);
		t->slots = (u64)FIELD(direct, ring, buf_table.nodes);
		t->tags = 0;
	} else {
		struct io_ring_ctx___v61 *ring = AS(direct, struct io_ring_ctx___v61, ctx);
		u64 data;

		t->nr = FIELD(direct, ring, nr_user_bufs);
		t->slots = (u64)FIELD(direct, ring, user_bufs);
		data = (u64)FIELD(direct, ring, buf_data);
		t->tags = data ? (u64)LOAD(direct, struct io_rsrc_data___v61, data, tags) : 0;
	}
}

/*
 * False for what is seen only while somebody changes the table. Up to 6.12 a
 * size of 0 with a table is a quiesce, for which the lock is let go
 * (io_rsrc_ref_quiesce). From 6.13 on io_rsrc_data_free() counts down past 0,
 * and a new table is stored size first.
 */
static __always_inline bool is_settled(const struct table *t)
{
	return t->nr ? t->slots && t->nr != ~0u : !t->slots;
}

/*
 * The memory shared with the process. IORING_REGISTER_RESIZE_RINGS swaps it
 * (6.13 on); where rings_rcu exists (6.18) RCU keeps it until we are done.
 */
static __always_inline u64 load_rings(const bool direct, u64 ctx)
{
	if (bpf_core_field_exists(struct io_ring_ctx___rcu, rings_rcu))
		return (u64)LOAD(direct, struct io_ring_ctx___rcu, ctx, rings_rcu);
	return (u64)LOAD(direct, struct io_ring_ctx, ctx, rings);
}

/* The table of registered files. */
static __always_inline void load_file_table(const bool direct, u64 ctx, struct table *t)
{
	t->tags = 0;
	if (bpf_core_field_exists(struct io_ring_ctx___v613, buf_table)) {
		t->nr = LOAD(direct, struct io_ring_ctx___v613, ctx, file_table.data.nr);
		t->slots = (u64)LOAD(direct, struct io_ring_ctx___v613, ctx, file_table.data.nodes);
	} else {
		u64 data;

		t->nr = LOAD(direct, struct io_ring_ctx___v61, ctx, nr_user_files);
		t->slots = (u64)LOAD(direct, struct io_ring_ctx___files61, ctx, file_table.files);
		data = (u64)LOAD(direct, struct io_ring_ctx___v61, ctx, file_data);
		if (data)
			t->tags = (u64)LOAD(direct, struct io_rsrc_data___v61, data, tags);
	}
}

/* What load_table() asks of struct io_ring_ctx; see pid_nr_at() for why not that. */
#define HAS_NODES bpf_core_field_exists(struct io_rsrc_node___v613, file_ptr)

/* The address of dummy_ubuf, which marks an empty slot up to 6.12 (io_uring/rsrc.c). */
#define NO_BUFFER (~0ULL)

/* The buffer in slot i, 0 for an empty slot. */
static __always_inline u64 buf_at(const bool direct, const struct table *t, u64 i)
{
	u64 slot = pointer_at(direct, t->slots, i);

	if (!slot)
		return 0;
	if (HAS_NODES)
		return (u64)LOAD(direct, struct io_rsrc_node___v613, slot, buf);
	return LOAD(direct, struct io_mapped_ubuf, slot, ubuf) == NO_BUFFER ? 0 : slot;
}

/* The tag of slot i, which is not empty. */
static __always_inline u64 tag_at(const bool direct, const struct table *t, u64 i, u8 page_shift)
{
	/* IO_RSRC_TAG_TABLE_SHIFT, io_uring/rsrc.h: pages of u64, up to 6.12 */
	u64 shift = page_shift - 3, at;

	if (HAS_NODES) {
		at = pointer_at(direct, t->slots, i);
		return LOAD(direct, struct io_rsrc_node___v613, at, tag);
	}
	if (!t->tags)
		return 0;
	at = pointer_at(direct, t->tags, i >> shift);
	return number_at(direct, at, i & ((1ULL << shift) - 1));
}

/* The low bits of a pointer to a file are flags (FFS_MASK, io_uring/filetable.h). */
#define FILE_MASK (~7ULL)

/* The file in slot i, 0 for an empty slot, and its tag. */
static __always_inline u64 file_at(const bool direct, const struct table *t, u64 i, u8 page_shift,
				   u64 *tag)
{
	struct io_rsrc_node___v613 *node;
	u64 slot;

	*tag = 0;
	if (!HAS_NODES) {
		slot = number_at(direct, t->slots, i) & FILE_MASK;
		if (slot)
			*tag = tag_at(direct, t, i, page_shift);
		return slot;
	}
	slot = pointer_at(direct, t->slots, i);
	if (!slot)
		return 0;
	node = AS(direct, struct io_rsrc_node___v613, slot);
	*tag = FIELD(direct, node, tag);
	return FIELD(direct, node, file_ptr) & FILE_MASK;
}

/* The fields of a buffer. */
static __always_inline void load_buf(const bool direct, struct io_mapped_ubuf *imu,
				     struct registered_buf *r)
{
	struct io_mapped_ubuf___v61 *v61 = (void *)imu;
	struct io_mapped_ubuf___later *later = (void *)imu;
	struct io_mapped_ubuf___len64 *len64 = (void *)imu;
	struct io_mapped_ubuf___v7 *v7 = (void *)imu;

	r->addr = FIELD(direct, imu, ubuf);
	r->flags = BUF_FILLED | BUF_TAG_KNOWN | BUF_ORIGIN_KNOWN;
	r->nr_bvecs = FIELD(direct, imu, nr_bvecs);
	if (bpf_core_field_exists(v61->ubuf_end))
		r->len = FIELD(direct, v61, ubuf_end) - r->addr;
	else if (bpf_core_field_size(later->len) == 8)
		r->len = FIELD(direct, len64, len);
	else
		r->len = FIELD(direct, later, len);
	if (bpf_core_field_exists(later->folio_shift))
		r->bvec_shift = FIELD(direct, later, folio_shift);
	else
		r->bvec_shift = r->page_shift;
	if (bpf_core_field_exists(later->refs))
		r->refs = FIELD(direct, later, refs.refs.counter);
	else
		r->refs = 1;
	if (bpf_core_field_exists(later->acct_pages))
		r->acct_pages = FIELD(direct, later, acct_pages);
	else
		r->acct_pages = PAGES_UNKNOWN;
	if (bpf_core_field_exists(later->is_kbuf)) {
		if (FIELD(direct, later, is_kbuf))
			r->flags |= BUF_KERNEL;
		r->dir = FIELD(direct, later, dir);
	} else if (bpf_core_field_exists(v7->flags)) {
		if (FIELD(direct, v7, flags) & IO_REGBUF_F_KBUF)
			r->flags |= BUF_KERNEL;
		r->dir = FIELD(direct, later, dir);
	} else {
		r->dir = BUF_DIR_DEST | BUF_DIR_SOURCE;
	}
}

/* The fields of one slot, as a record. False for an empty slot. */
static __always_inline bool load_slot(const bool direct, const struct table *t, u64 i,
				      u8 page_shift, struct registered_buf *r)
{
	u64 slot = pointer_at(direct, t->slots, i), tag;
	struct io_mapped_ubuf *imu;

	__builtin_memset(r, 0, sizeof(*r));
	r->index = i;
	r->page_shift = page_shift;
	if (!slot)
		return false;
	if (HAS_NODES) {
		struct io_rsrc_node___v613 *node = AS(direct, struct io_rsrc_node___v613, slot);

		tag = FIELD(direct, node, tag);
		/* One of a union, which has no type for the verifier. */
		slot = (u64)FIELD(direct, node, buf);
		if (!slot)
			return false;
		imu = AS(direct, struct io_mapped_ubuf, slot);
	} else {
		imu = AS(direct, struct io_mapped_ubuf, slot);
		if (FIELD(direct, imu, ubuf) == NO_BUFFER)
			return false;
		tag = tag_at(direct, t, i, page_shift);
	}
	r->tag = tag;
	load_buf(direct, imu, r);
	return true;
}

/* Pages that the range of a record touches. */
static __always_inline u64 touched_pages(const struct registered_buf *r)
{
	u64 mask = (1ULL << r->page_shift) - 1;

	return ((r->addr & mask) + r->len + mask) >> r->page_shift;
}

#endif
