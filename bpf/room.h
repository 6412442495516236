/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Room for record_t that is as large as user space makes it: one value of a map each. */
#ifndef URING_ROOM_H
#define URING_ROOM_H

#include "request.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* set at load */
	__type(key, u32);
	__type(value, record_t);
} records SEC(".maps");

typedef void room_t;

static __always_inline room_t *room(void)
{
	return &records;
}

static __always_inline record_t *record_at(room_t *room, u64 i)
{
	u32 key = i;

	return bpf_map_lookup_elem(room, &key);
}

#endif
