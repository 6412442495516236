// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The table of registered buffers of one ring. */
#include "request.h"
#include "table.h"

typedef struct registered_buf record_t;

struct all_records {
	record_t slot[MAX_BUFS];
};

/*
 * All in one value, which costs less to be looked up in than one value a slot. Not in a
 * section of its own: libbpf writes down the zeros of such for its loader, and the
 * kernel copies them.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct all_records);
} records SEC(".maps");

#define STABLE_WORDS (sizeof(record_t) / sizeof(u64))
#define MAX_SLOTS MAX_BUFS

typedef struct all_records room_t;

static __always_inline room_t *room(void)
{
	u32 only = 0;

	return bpf_map_lookup_elem(&records, &only);
}

static __always_inline record_t *record_at(room_t *room, u64 i)
{
	return i < MAX_SLOTS ? &room->slot[i] : NULL;
}

static __always_inline u32 open_table(const bool direct, u64 ctx, struct table *t)
{
	load_table(direct, ctx, t);
	return is_settled(t) ? WALK_DONE : WALK_CHANGED;
}

static __always_inline u64 target(u64 slot)
{
	return HAS_NODES ? ADDRESS(struct io_rsrc_node___v613, slot, buf) : slot;
}

/* Also what comes last in a buffer: it may lie on the next line of the cache. */
static __always_inline u64 touch_buf(u64 at)
{
	u64 seen = LOAD(true, struct io_mapped_ubuf, at, ubuf);

	if (bpf_core_field_exists(struct io_mapped_ubuf___later, dir))
		seen ^= LOAD(true, struct io_mapped_ubuf___later, at, dir);
	return seen;
}

#define touch touch_buf

static __always_inline bool load_record(const bool direct, const struct table *t, u64 i,
					record_t *r)
{
	load_slot(direct, t, i, request.page_shift, r);
	return true;
}

#include "dump.h"

/* A slot that the kernel shows us. False at the end. */
static __always_inline bool shown(const bool direct, struct bpf_iter__io_uring_buf *it, record_t *r)
{
	struct io_mapped_ubuf *imu = it->ubuf;
	u64 i = it->index;
	struct table t;

	load_table(direct, (u64)it->ctx, &t);
	barrier_var(i);
	if (i >= MAX_SLOTS || (!imu && i >= t.nr))
		return false;
	__builtin_memset(r, 0, sizeof(*r));
	r->index = i;
	r->page_shift = request.page_shift;
	if (imu) {
		r->tag = tag_at(direct, &t, i, request.page_shift);
		load_buf(direct, imu, r);
	}
	return true;
}

NATIVE_PROGRAMS("iter/io_uring_buf", struct bpf_iter__io_uring_buf, ctx)
