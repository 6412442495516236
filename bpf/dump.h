/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A table of one ring: the programs that find the ring. What an object has to
 * say before it includes this is in verify.h and native.h, but for the table
 * and its lock, which are in ring_table.h.
 *
 * Each program has a twin `_compat` for kernels before 6.9.
 */
#ifndef URING_DUMP_H
#define URING_DUMP_H

#include "ring_table.h"
#include "native.h"
#include "verify.h"

#define IORING_REGISTER_PROBE 8 /* include/uapi/linux/io_uring.h */

static __always_inline void walk_ring(const bool direct, u64 ctx)
{
	direct ? walk_direct(ctx) : walk_compat(ctx);
}

/* The ring of a file, if it is the one that was asked for. */
static __always_inline u64 wanted_ring(const bool direct, u64 file)
{
	if (!file || inode_of(direct, file) != request.inode || !is_ring(direct, file))
		return 0;
	return ring_of(file);
}

static __always_inline int walk_file(const bool direct, u64 file)
{
	u64 ctx;

	if (reply.status != WALK_NOT_FOUND)
		return 0;
	ctx = wanted_ring(direct, file);
	if (ctx)
		walk_ring(direct, ctx);
	return 0;
}

SEC("iter/task_file")
int dump_file(struct bpf_iter__task_file *it)
{
	return walk_file(true, (u64)it->file);
}

SEC("iter/task_file")
int dump_file_compat(struct bpf_iter__task_file *it)
{
	return walk_file(false, (u64)it->file);
}

/*
 * The file of a registered descriptor is not ours to hold: the task may drop
 * it, and the ring with it, while we read. Reads of freed memory are harmless,
 * and a table read so is refused when the descriptor is no longer there.
 */
static __always_inline void walk_registered(const bool direct, struct task_struct *task)
{
	for (u32 i = 0; i < NR_REGISTERED_RINGS; i++) {
		u64 file = registered_ring(task, i);
		u64 ctx = wanted_ring(direct, file);

		if (!ctx)
			continue;
		walk_ring(direct, ctx);
		if (registered_ring(task, i) != file || wanted_ring(direct, file) != ctx)
			reply.status = WALK_NOT_FOUND;
		break;
	}
}

/* A mapping keeps the ring's file, and mmap_lock keeps the mapping. */
static __always_inline void walk_mapped(struct task_struct *task)
{
	struct bpf_iter_task_vma it;
	struct vm_area_struct *vma;
	u64 ctx = 0;

	bpf_iter_task_vma_new(&it, task, 0);
	while (!ctx && (vma = bpf_iter_task_vma_next(&it)))
		ctx = wanted_ring(true, file_of(vma));
	if (ctx)
		walk_ring(true, ctx);
	bpf_iter_task_vma_destroy(&it);
}

SEC("iter/task")
int dump_task(struct bpf_iter__task *it)
{
	struct task_struct *task = it->task;

	if (!task)
		return 0;
	barrier_var(task);
	if (reply.status == WALK_NOT_FOUND)
		walk_registered(true, task);
	if (reply.status == WALK_NOT_FOUND && speaks_for_memory(task))
		walk_mapped(task);
	return 0;
}

SEC("iter/task")
int dump_task_compat(struct bpf_iter__task *it)
{
	struct task_struct *task = it->task;

	if (!task)
		return 0;
	barrier_var(task); /* no arithmetic on it before the check */
	if (reply.status == WALK_NOT_FOUND)
		walk_registered(false, task);
	return 0;
}

SEC("iter/task_vma")
int dump_vma_compat(struct bpf_iter__task_vma *it)
{
	struct vm_area_struct *vma = it->vma;

	return vma ? walk_file(false, (u64)vma->vm_file) : 0;
}

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
		walk_ring(true, ctx);
	return 0;
}

#endif
