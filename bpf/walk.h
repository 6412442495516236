/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Loops over a table that the verifier of each kernel accepts: may_goto in the
 * main frame (6.9 on), bpf_loop() before that. Nothing here knows what is
 * done with a slot.
 *
 * Two things that look odd are needed. The counter starts from a 0 that the
 * verifier does not know, or it would follow each round by itself. barrier_var()
 * keeps clang from running a second counter whose bound gets lost.
 */
#ifndef URING_WALK_H
#define URING_WALK_H

#include "ring.h"

u64 zero; /* never written */

/* False when the kernel says that the loop has run for long enough. */
#define can_loop                                                         \
	({                                                               \
		__label__ l_stop, l_done;                                \
		bool __go = true;                                        \
		asm volatile goto("may_goto %l[l_stop]" : : : : l_stop); \
		goto l_done;                                             \
l_stop:                                                                  \
		__go = false;                                            \
l_done:                                                                  \
		__go;                                                    \
	})

/*
 * may_goto ends after a quarter of a second (6.15 on), which a large table may
 * take; in a program at a tracepoint even after 65,535 rounds (seen on 6.18).
 * Each call of a function that is not static begins anew: a loop for one of those.
 */
#define ROUNDS (1 << 15)

/*
 * for (i = 0; i < nr; i++) body; `i` is nr at the end only if all was done.
 * `max` is a literal by which the verifier knows that `i` has a bound.
 */
#define for_each_slot_direct(i, nr, max)          \
	for (i = zero; i < (nr) && can_loop; i++) \
		if (({                            \
			    barrier_var(i);       \
			    i >= (max);           \
		    }))                           \
			break;                    \
		else

#define ENOENT 2

#define NR_REGISTERED_RINGS 16 /* IO_RINGFD_REG_MAX, io_uring/tctx.h */

/* A descriptor of a ring that a task has registered (IORING_REGISTER_RING_FDS). */
static __always_inline u64 registered_ring(struct task_struct *task, u32 i)
{
	struct io_uring_task *tctx = BPF_CORE_READ(task, io_uring);

	return tctx ? pointer_at(false, (u64)&tctx->registered_rings, i) : 0;
}

/* By one look at all of them: there seldom is one. A frame of its own, for its size. */
static __noinline __attribute__((unused)) bool has_registered_ring(struct task_struct *task)
{
	struct io_uring_task *tctx = BPF_CORE_READ(task, io_uring);
	u64 all[NR_REGISTERED_RINGS] = {}, any = 0;

	if (!tctx || bpf_core_read(all, sizeof(all), &tctx->registered_rings))
		return false;
	for (u32 i = 0; i < NR_REGISTERED_RINGS; i++)
		any |= all[i];
	return any;
}

/*
 * True for one task of each process that still has its memory: the leader, or
 * any task if the leader has ended before the others.
 */
static __always_inline bool speaks_for_memory(struct task_struct *task)
{
	return task->pid == task->tgid || !BPF_CORE_READ(task, group_leader, mm);
}

/* Open-coded walk over mappings: only try-locks mmap_lock (6.7 on). */
struct bpf_iter_task_vma {
	__u64 opaque[1];
} __attribute__((aligned(8)));

extern int bpf_iter_task_vma_new(struct bpf_iter_task_vma *it, struct task_struct *task,
				 __u64 addr) __ksym __weak;
extern struct vm_area_struct *bpf_iter_task_vma_next(struct bpf_iter_task_vma *it) __ksym __weak;
extern void bpf_iter_task_vma_destroy(struct bpf_iter_task_vma *it) __ksym __weak;

/*
 * The file of a mapping, as a number. Not by a pointer that the verifier trusts:
 * for each pointer that is read by one of those it looks for four names among all
 * types, a millisecond's work, on each path to it.
 */
static __always_inline u64 file_of(struct vm_area_struct *vma)
{
	return (u64)LOAD(true, struct vm_area_struct, vma, vm_file);
}

#endif
