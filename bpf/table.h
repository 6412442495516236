/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The tables that a ring keeps of what is registered with it, for any kernel from
 * 6.1 on. Nothing here decides or walks.
 */
#ifndef URING_TABLE_H
#define URING_TABLE_H

#include "load.h"
#include "record.h"

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
