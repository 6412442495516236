/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A table of one ring. What an object has to say before it includes this is in
 * verify.h and native.h, but for the table and its lock, which are in ring_table.h.
 */
#ifndef URING_DUMP_H
#define URING_DUMP_H

#include "ring_table.h"
#include "native.h"
#include "verify.h"

#define IORING_REGISTER_PROBE 8 /* include/uapi/linux/io_uring.h */

/* The ring of a file, if it is the one that was asked for. */
static __always_inline u64 wanted(const bool direct, u64 file)
{
	if (!file || inode_of(direct, file) != request.inode || !is_ring(direct, file))
		return 0;
	return ring_of(file);
}

#include "place.h"

/*
 * From 6.13 on io_uring_register(2) fires this with uring_lock held. The
 * observer is a process that makes one call which does nothing but fail.
 */
SEC("tp_btf/io_uring_register")
int dump_locked(u64 *args)
{
	struct task_struct *me = (void *)bpf_get_current_task();
	u64 ctx = args[0], ns;

	if ((u32)args[1] != IORING_REGISTER_PROBE || request.mode != WALK_LOCKED ||
	    reply.status != WALK_NOT_FOUND)
		return 0;
	if (pid_nr_at(me, request.pidns_level, &ns) != request.observer || ns != request.pidns)
		return 0;
	if (lock_owner(true, ctx) != (u64)me)
		reply.status = WALK_NOT_LOCKED;
	else
		walk_direct(ctx);
	return 0;
}

#endif
