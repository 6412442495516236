/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The programs on native iterators. */
#ifndef URING_NATIVE_H
#define URING_NATIVE_H

#include "verify.h"

/*
 * The programs on a native iterator, where the object says what is shown:
 *
 *   shown(direct, it, r)      the record of this slot, false at the end
 *
 * One writes records into the stream, slot by slot, and after them one that is
 * none: a stream without it is not whole, or not of ours.
 *
 * The other puts all of them in their place when it is called first, be it for a
 * slot or for the end: the kernel holds the lock, and to be called costs more than
 * to read a slot. Then it has the kernel stop (1: the same slot again, for which
 * the reader has to come back, who is told EAGAIN). `whole` is what the table is of.
 */
#define NATIVE_PROGRAMS(section, context, whole)                                 \
	static __always_inline u64 whole_of(context *it)                         \
	{                                                                        \
		/* As a plain number, which a verifier takes for an argument. */ \
		return (u64)LOAD(false, context, (u64)it, whole);                \
	}                                                                        \
                                                                                 \
	static __always_inline int stream_shown(const bool direct, context *it)  \
	{                                                                        \
		record_t r;                                                      \
                                                                                 \
		if (!shown(direct, it, &r))                                      \
			__builtin_memset(&r, STREAM_END, sizeof(r));             \
		bpf_seq_write(it->meta->seq, &r, sizeof(r));                     \
		return 0;                                                        \
	}                                                                        \
                                                                                 \
	SEC(section) int dump_native(context *it)                                \
	{                                                                        \
		walk_direct(whole_of(it));                                       \
		return 1;                                                        \
	}                                                                        \
	SEC(section) int dump_native_compat(context *it)                         \
	{                                                                        \
		walk_compat(whole_of(it));                                       \
		return 1;                                                        \
	}                                                                        \
	SEC(section) int stream_native(context *it)                              \
	{                                                                        \
		return stream_shown(true, it);                                   \
	}                                                                        \
	SEC(section) int stream_native_compat(context *it)                       \
	{                                                                        \
		return stream_shown(false, it);                                  \
	}

#endif
