/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which file is a ring, and what a ring is made of, for any kernel from 6.1 on. */
#ifndef URING_RING_H
#define URING_RING_H

#include "file.h"

static __always_inline bool is_ring(const bool direct, u64 file)
{
	return is_anon_file(direct, file, "[io_uring]");
}

/* As a plain number: newer verifiers would type what a direct load gives. */
static __always_inline u64 ring_of(u64 file)
{
	return (u64)LOAD(false, struct file, file, private_data);
}

/* Who holds uring_lock. */
static __always_inline u64 lock_owner(const bool direct, u64 ctx)
{
	return mutex_owner(direct, struct io_ring_ctx, ctx, uring_lock);
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

#endif
