/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A task, as its reader numbers it, and the rings that it holds without a descriptor. */
#ifndef URING_TASK_H
#define URING_TASK_H

#include "load.h"

/*
 * The number of a task in the pid namespace of the reader, and which that is, opaque.
 * The iterators only show tasks that have one. In one place, and without a look into
 * struct pid_namespace: of that and struct pid the kernel remembers only the one that
 * it has met last when a loader asks for it (hash_cands(), kernel/bpf/btf.c), and
 * looks through all types for the other.
 */
static __noinline __attribute__((unused)) u32 pid_nr_at(struct task_struct *task, u32 level,
							u64 *ns)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	u32 nr = 0;
	u64 upid;

	*ns = 0;
	if (!pid || BPF_CORE_READ(pid, level) < level)
		return 0;
	upid = (u64)pid + bpf_core_field_offset(struct pid, numbers) +
	       level * bpf_core_type_size(struct upid);
	bpf_probe_read_kernel(&nr, sizeof(nr),
			      (void *)upid + bpf_core_field_offset(struct upid, nr));
	bpf_probe_read_kernel(ns, sizeof(*ns),
			      (void *)upid + bpf_core_field_offset(struct upid, ns));
	return nr;
}

static __always_inline u32 reader_level(void)
{
	struct task_struct *me = (void *)bpf_get_current_task();

	return BPF_CORE_READ(me, thread_pid, level);
}

/* How often the reader has left its CPU, willing or not. */
static __always_inline u64 context_switches(void)
{
	struct task_struct *me = (void *)bpf_get_current_task();

	return BPF_CORE_READ(me, nvcsw) + BPF_CORE_READ(me, nivcsw);
}

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

/* How many descriptors the table of a task has room for, and descriptor i of it. */
static __always_inline u64 nr_descriptors(const bool direct, u64 task)
{
	u64 files = (u64)LOAD(direct, struct task_struct, task, files), fdt;

	if (!files)
		return 0;
	fdt = (u64)LOAD(direct, struct files_struct, files, fdt);
	return LOAD(direct, struct fdtable, fdt, max_fds);
}

static __always_inline u64 descriptor_at(const bool direct, u64 task, u64 i)
{
	u64 files = (u64)LOAD(direct, struct task_struct, task, files), fdt;

	if (!files)
		return 0;
	fdt = (u64)LOAD(direct, struct files_struct, files, fdt);
	if (i >= LOAD(direct, struct fdtable, fdt, max_fds))
		return 0;
	return pointer_at(direct, (u64)LOAD(direct, struct fdtable, fdt, fd), i);
}

/* The file that a task has there, 0 for none. */
static __always_inline u64 file_there(const bool direct, u64 task, u32 via, u64 i)
{
	if (via == VIA_DESCRIPTOR)
		return descriptor_at(direct, task, i);
	if (i >= NR_REGISTERED_RINGS)
		return 0;
	return registered_ring((struct task_struct *)task, i);
}

/*
 * What an iterator over tasks is given: two pointers on every kernel (DEFINE_BPF_ITER_FUNC,
 * include/linux/bpf.h), so that no kernel is asked where they are.
 */
struct task_ctx {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

/*
 * True for one task of each process that still has its memory: the leader, or
 * any task if the leader has ended before the others.
 */
static __always_inline bool speaks_for_memory(u64 task)
{
	u64 leader = ADDRESS(struct task_struct, task, group_leader);

	return leader == task || !LOAD(true, struct task_struct, leader, mm);
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
	return ADDRESS(struct vm_area_struct, vma, vm_file);
}

#endif
