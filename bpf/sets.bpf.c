// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Every descriptor by which a task holds an epoll set. One sighting each; user space puts
 * those of one set together. Kernels before 6.9 have find_sets_compat() instead.
 */
#include "epoll.h"

typedef struct epoll_sighting sighting_t;

#include "find.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline void sight_set(const bool direct, u64 task, u64 file, u64 set, s32 at)
{
	u32 nr = direct ? note_holder_direct(task, VIA_DESCRIPTOR, at)
			: note_holder(false, task, VIA_DESCRIPTOR, at);
	struct epoll_sighting *r = bpf_map_lookup_elem(&sightings, &nr);

	if (!r)
		return;
	r->set = set;
	r->inode = inode_of(direct, file);
}

/* Without a hold of the file: a sighting of one that went meanwhile is forgotten. */
__noinline int sight_direct(u64 task, u64 file, u32 via, s32 at)
{
	u64 before = reply.nr, set = set_of(true, file);

	if (!set)
		return true;
	sight_set(true, task, file, set, at);
	if (file_there(true, task, via, at) == file && set_of(true, file) == set)
		return true;
	reply.nr = before;
	return false;
}

SEC("iter/task")
int find_sets(struct task_ctx *it)
{
	struct task_struct *task = it->task;
	u64 plain, rest;

	if (!task)
		return 0;
	/* As a plain number, which the verifier takes for an argument. */
	bpf_probe_read_kernel(&plain, sizeof(plain), &it->task);
	rest = !sight_descriptors(plain);
	/* Nothing but 0 and 1 may come back, which a verifier does not know of a bool in a map. */
	barrier_var(rest);
	return rest & 1;
}

SEC("iter/task_file")
int find_sets_compat(struct bpf_iter__task_file *it)
{
	struct task_struct *task = it->task;
	struct file *file = it->file;
	u64 set;

	if (!task || !file)
		return 0;
	set = set_of(false, (u64)file);
	if (set)
		sight_set(false, (u64)task, (u64)file, set, it->fd);
	return 0;
}
