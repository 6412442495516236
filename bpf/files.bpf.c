// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The table of registered files of one ring, and the descriptors of a process,
 * by which user space finds out who else has these files.
 */
#include "file.h"
#include "table.h"

typedef struct registered_file record_t;

#include "room.h"

/* Up to the inode: who uses a file moves its position without the lock. */
#define STABLE_WORDS 4
#define MAX_SLOTS (1 << 20) /* IORING_MAX_FIXED_FILES, io_uring/rsrc.h */

static __always_inline u32 open_table(const bool direct, u64 ctx, struct table *t)
{
	load_file_table(direct, ctx, t);
	/*
	 * With the lock a size of 0 is the truth, and nobody quiesces: up to 6.12 a table
	 * whose bitmap could not be had is freed, and its address stays
	 * (io_alloc_file_tables(), io_uring/filetable.c).
	 */
	if (request.mode == WALK_LOCKED && !t->nr)
		return WALK_DONE;
	return is_settled(t) ? WALK_DONE : WALK_CHANGED;
}

static __always_inline void fill(const bool direct, u64 i, u64 file, u64 tag, record_t *r)
{
	__builtin_memset(r, 0, sizeof(*r));
	r->index = i;
	if (!file)
		return;
	r->tag = tag;
	load_file(direct, file, &r->file);
}

static __always_inline u64 target(u64 slot)
{
	if (HAS_NODES)
		slot = LOAD(true, struct io_rsrc_node___v613, slot, file_ptr);
	return slot & FILE_MASK;
}

static __always_inline u64 touch_file(u64 file)
{
	u64 inode = ADDRESS(struct file, file, f_inode);
	u64 dentry = ADDRESS(struct file, file, f_path.dentry);

	return LOAD(true, struct file, file, f_pos) ^ LOAD(true, struct inode, inode, i_ino) ^
	       ADDRESS(struct dentry, dentry, d_parent);
}

#define touch touch_file

static __always_inline bool load_record(const bool direct, const struct table *t, u64 i,
					record_t *r)
{
	u64 tag, file = file_at(direct, t, i, request.page_shift, &tag);

	fill(direct, i, file, tag, r);
	return true;
}

/* All that a second look compares: what a file is besides takes most of the time. */
static __always_inline bool load_stable(const bool direct, const struct table *t, u64 i,
					record_t *r)
{
	u64 file = file_at(direct, t, i, request.page_shift, &r->tag);

	r->index = i;
	r->file.file = file;
	r->file.inode = file ? inode_of(direct, file) : 0;
	return true;
}

#define load_stable load_stable

#include "dump.h"

/* A slot that the kernel shows us. False at the end. */
static __always_inline bool shown(const bool direct, struct bpf_iter__io_uring_file *it,
				  record_t *r)
{
	/* As a plain number, which a verifier takes for an argument. */
	u64 file = (u64)LOAD(false, struct bpf_iter__io_uring_file, (u64)it, file);
	u64 i = it->index;
	struct table t;

	load_file_table(direct, (u64)it->ctx, &t);
	barrier_var(i);
	if (i >= MAX_SLOTS || (!file && i >= t.nr))
		return false;
	fill(direct, i, file, file ? tag_at(direct, &t, i, request.page_shift) : 0, r);
	return true;
}

NATIVE_PROGRAMS("iter/io_uring_file", struct bpf_iter__io_uring_file, ctx)

/* The path of one registered file, as the kernel tells it to its reader. */
struct file_path path SEC(".bss.path");

SEC("iter/io_uring_file")
int tell_path(struct bpf_iter__io_uring_file *it)
{
	struct file *file = it->file;

	if (file && it->index == request.slot)
		path.len = bpf_d_path(&file->f_path, path.text, sizeof(path.text));
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, struct descriptor);
} descriptors SEC(".maps");

/* Those beyond the capacity of the map are counted, to come back with more. */
static __always_inline int list_descriptor(const bool direct, struct bpf_iter__task_file *it)
{
	u64 file = (u64)it->file;
	struct descriptor *to;
	u32 key;

	if (!file)
		return 0;
	key = reply.nr_slots++;
	to = bpf_map_lookup_elem(&descriptors, &key);
	if (!to)
		return 0;
	to->file = file;
	to->inode = inode_of(direct, file);
	to->fd = it->fd;
	to->pad = 0;
	return 0;
}

SEC("iter/task_file")
int list_descriptors(struct bpf_iter__task_file *it)
{
	return list_descriptor(true, it);
}

SEC("iter/task_file")
int list_descriptors_compat(struct bpf_iter__task_file *it)
{
	return list_descriptor(false, it);
}
