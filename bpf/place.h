/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The programs that find what was asked for where a task has it, and walk its
 * table. An object says, before it includes this:
 *
 *   wanted(direct, file)   what a file is of, if that was asked for, else 0
 *
 * User space knows the task and the number there, so that nothing else is looked
 * at, however many descriptors the task has: dump_call is one system call
 * (BPF_PROG_RUN), for kernels from 6.10 on. Where that does not serve, and for
 * mappings, an iterator over that one task does the same: dump_task, and
 * dump_task_compat for kernels before 6.9. These two also look for what is no longer
 * where it was.
 */
#ifndef URING_PLACE_H
#define URING_PLACE_H

#include "task.h"
#include "verify.h"

#define EBUSY 16
#define MAX_LOOKS (1 << 23) /* BPF_MAX_LOOPS, include/linux/bpf.h */

extern void bpf_rcu_read_lock(void) __ksym __weak;
extern void bpf_rcu_read_unlock(void) __ksym __weak;
extern struct task_struct *bpf_task_from_pid(s32 pid) __ksym __weak;
extern struct task_struct *bpf_task_from_vpid(s32 vpid) __ksym __weak;
extern void bpf_task_release(struct task_struct *p) __ksym __weak;

static __always_inline void walk_table(const bool direct, u64 object)
{
	direct ? walk_direct(object) : walk_compat(object);
}

/*
 * Such a file is not ours to hold: the task may drop it, and what it is of, while we
 * read. Reads of freed memory are harmless, and a table read so is refused when the
 * file is no longer there, or no longer that. (No other file gets its inode number.)
 */
static __always_inline int walk_there(const bool direct, u64 task, u32 via, u64 i)
{
	u64 file = file_there(direct, task, via, i), object = wanted(direct, file);

	if (!object)
		return 0;
	walk_table(direct, object);
	/* Gone, or elsewhere: the next look says. */
	if (file_there(direct, task, via, i) != file || wanted(direct, file) != object)
		reply.status = WALK_CHANGED;
	return 0;
}

/* Not static: the verifier looks at them by themselves, and once. */
__noinline int walk_there_direct(u64 task, u32 via, u64 i)
{
	return walk_there(true, task, via, i);
}

__noinline int walk_there_compat(u64 task, u32 via, u64 i)
{
	return walk_there(false, task, via, i);
}

/* A mapping keeps the file, and mmap_lock keeps the mapping. */
static __always_inline void walk_mapped(struct task_struct *task)
{
	struct bpf_iter_task_vma it;
	struct vm_area_struct *vma;
	u64 object = 0;

	if (bpf_iter_task_vma_new(&it, task, 0) == -EBUSY)
		reply.status = WALK_UNSEEN;
	while (!object && (vma = bpf_iter_task_vma_next(&it)))
		object = wanted(true, file_of(vma));
	if (object)
		walk_direct(object);
	bpf_iter_task_vma_destroy(&it);
}

/*
 * For a descriptor, registered or not. Each kfunc that a program names is looked for
 * among all functions of the kernel, most of a millisecond's work: so those for
 * mappings are dump_task's alone, and each way to find a task is a program.
 */
static __always_inline void walk_of_task(struct task_struct *task)
{
	u64 plain;

	if (!task)
		return;
	/* As a plain number, which a verifier takes for an argument. */
	bpf_probe_read_kernel(&plain, sizeof(plain), &task);
	walk_there_direct(plain, request.via, request.at);
	bpf_task_release(task);
}

/* The task of that number in the pid namespace of the reader (6.14 on). */
SEC("syscall")
int dump_call(void *unused __attribute__((unused)))
{
	bpf_rcu_read_lock();
	walk_of_task(bpf_task_from_vpid(request.tid));
	bpf_rcu_read_unlock();
	return 0;
}

/* The same in the initial one, whose numbers all kernels from 6.10 on know. */
SEC("syscall")
int dump_call_initial(void *unused __attribute__((unused)))
{
	if (reader_level()) {
		reply.status = WALK_NO_LOOKUP;
		return 0;
	}
	bpf_rcu_read_lock();
	walk_of_task(bpf_task_from_pid(request.tid));
	bpf_rcu_read_unlock();
	return 0;
}

/* What a task has of a kind: how many there may be. */
static __always_inline u64 nr_there(const bool direct, u64 task, u32 via)
{
	if (via == VIA_DESCRIPTOR)
		return nr_descriptors(direct, task);
	return has_registered_ring((struct task_struct *)task) ? NR_REGISTERED_RINGS : 0;
}

#define NOWHERE (-1)

/* Looks through all that a task has of a kind: where it is, or NOWHERE. */
__noinline int find_direct(u64 task, u32 via)
{
	u64 nr = nr_there(true, task, via), i;

	for_each_slot_direct(i, nr, MAX_LOOKS) {
		if (wanted(true, file_there(true, task, via, i)))
			return i;
	}
	return NOWHERE;
}

struct look {
	u64 task;
	u32 via;
	s32 at;
};

static long look_compat(u64 i, struct look *l)
{
	if (!wanted(false, file_there(false, l->task, l->via, i)))
		return 0;
	l->at = i;
	return 1;
}

static __always_inline int find_compat(u64 task, u32 via)
{
	struct look l = { .task = task, .via = via, .at = NOWHERE };

	bpf_loop(nr_there(false, task, via), look_compat, &l, 0);
	return l.at;
}

static __always_inline void met(u64 task, u32 via, u32 at)
{
	u64 ns;

	reply.tid = pid_nr_at((struct task_struct *)task, reader_level(), &ns);
	reply.via = via;
	reply.at = at;
}

static __always_inline void walk_anywhere(const bool direct, u64 task, u32 via)
{
	int at;

	if (reply.status != WALK_NOT_FOUND)
		return;
	at = direct ? find_direct(task, via) : find_compat(task, via);
	if (at < 0)
		return;
	met(task, via, at);
	direct ? walk_there_direct(task, via, at) : walk_there_compat(task, via, at);
	if (reply.status == WALK_NOT_FOUND)
		reply.status = WALK_CHANGED;
}

/* Threads that share the descriptors of their leader have none to look through. */
static __always_inline bool has_own_descriptors(const bool direct, u64 task)
{
	u64 leader = (u64)LOAD(direct, struct task_struct, task, group_leader);

	return leader == task || LOAD(direct, struct task_struct, task, files) !=
					 LOAD(direct, struct task_struct, leader, files);
}

static __always_inline int look_at_task(const bool direct, struct task_ctx *it)
{
	struct task_struct *task = it->task;
	u64 plain;

	if (!task || reply.status != WALK_NOT_FOUND)
		return 0;
	/* As a plain number, which a verifier takes for an argument. */
	bpf_probe_read_kernel(&plain, sizeof(plain), &it->task);
	if (request.anywhere) {
		if (has_own_descriptors(direct, plain))
			walk_anywhere(direct, plain, VIA_DESCRIPTOR);
		walk_anywhere(direct, plain, VIA_REGISTERED);
	} else if (request.via != VIA_MAPPING) {
		direct ? walk_there_direct(plain, request.via, request.at)
		       : walk_there_compat(plain, request.via, request.at);
		return 0;
	}
	if (direct && reply.status == WALK_NOT_FOUND && speaks_for_memory(plain)) {
		met(plain, VIA_MAPPING, 0);
		walk_mapped(task);
	}
	return 0;
}

SEC("iter/task")
int dump_task(struct task_ctx *it)
{
	return look_at_task(true, it);
}

SEC("iter/task")
int dump_task_compat(struct task_ctx *it)
{
	return look_at_task(false, it);
}

/* The mappings, for dump_task_compat. */
SEC("iter/task_vma")
int dump_vma_compat(struct bpf_iter__task_vma *it)
{
	struct vm_area_struct *vma = it->vma;
	u64 object;

	if (!vma || reply.status != WALK_NOT_FOUND ||
	    (!request.anywhere && request.via != VIA_MAPPING))
		return 0;
	object = wanted(false, (u64)vma->vm_file);
	if (object)
		walk_compat(object);
	return 0;
}

#endif
