/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The programs on native iterators. */
#ifndef URING_NATIVE_H
#define URING_NATIVE_H

#include "verify.h"

/*
 * The native iterators call their program under the lock, once a slot. What is
 * written twice, because the kernel began a slot anew, is written the same.
 */
static __always_inline void put_native(u64 i, const record_t *r)
{
	record_t *to = record_at(i);

	if (to)
		*to = *r;
}

static __always_inline int end_native(u64 nr)
{
	reply.nr_slots = nr;
	reply.status = nr > request.capacity ? WALK_TOO_MANY : WALK_DONE;
	return 0;
}

/*
 * The programs on a native iterator, where the object says what is shown:
 *
 *   shown(direct, it, r)      the record of this slot, false at the end
 *   slot_of(it)               the number of this slot
 *   slots_of(it)              at the end: how many there were
 *
 * One puts records in their place, the other into the stream, and after them
 * one that is none: a stream without it is not whole, or not of ours.
 */
#define NATIVE_PROGRAMS(section, context)                                       \
	static __always_inline int dump_shown(const bool direct, context *it)   \
	{                                                                       \
		record_t r;                                                     \
                                                                                \
		if (!shown(direct, it, &r))                                     \
			return end_native(slots_of(it));                        \
		put_native(slot_of(it), &r);                                    \
		return 0;                                                       \
	}                                                                       \
                                                                                \
	static __always_inline int stream_shown(const bool direct, context *it) \
	{                                                                       \
		record_t r;                                                     \
                                                                                \
		if (!shown(direct, it, &r))                                     \
			__builtin_memset(&r, STREAM_END, sizeof(r));            \
		bpf_seq_write(it->meta->seq, &r, sizeof(r));                    \
		return 0;                                                       \
	}                                                                       \
                                                                                \
	SEC(section) int dump_native(context *it)                               \
	{                                                                       \
		return dump_shown(true, it);                                    \
	}                                                                       \
	SEC(section) int dump_native_compat(context *it)                        \
	{                                                                       \
		return dump_shown(false, it);                                   \
	}                                                                       \
	SEC(section) int stream_native(context *it)                             \
	{                                                                       \
		return stream_shown(true, it);                                  \
	}                                                                       \
	SEC(section) int stream_native_compat(context *it)                      \
	{                                                                       \
		return stream_shown(false, it);                                 \
	}

#endif
