/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The search for files of one kind among the descriptors of tasks, and its sightings.
 * Sightings beyond the capacity of the map are counted, so that user space can come back
 * with a larger one. An object says, before it includes this:
 *
 *   sighting_t      one way in which a task holds such a file: with pid, tid, fd, via,
 *                   files, uid, comm and thread_comm, which note_holder() fills in
 *
 * and after that:
 *
 *   sight_direct()  looks at one file that a task has, and notes it if it is of that kind
 */
#ifndef URING_FIND_H
#define URING_FIND_H

#include "record.h"
#include "task.h"
#include "loop.h"

/* One map each, so that no one has to know where clang puts a variable. */
struct find_request request SEC(".bss.request");
struct find_reply reply SEC(".bss.reply");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, sighting_t);
} sightings SEC(".maps");

/* So much in one call: some milliseconds. In slots of buffers that are added up. */
#define MAX_WORK (1 << 16)

/* So many looks at one descriptor, in a table that is always another one. */
#define MAX_TRIES 100

/* Who holds something, and how: the number of a new sighting. There may be no room for it. */
static __always_inline u32 note_holder(const bool direct, u64 task, u32 via, s32 at)
{
	u32 nr = reply.nr++, level = reader_level();
	sighting_t *r = bpf_map_lookup_elem(&sightings, &nr);
	struct task_struct *t, *leader;
	u64 cred, ns;

	if (!r)
		return nr;
	__builtin_memset(r, 0, sizeof(*r));
	t = AS(direct, struct task_struct, task);
	leader = FIELD(direct, t, group_leader);
	cred = (u64)FIELD(direct, t, cred);
	r->pid = pid_nr_at(leader, level, &ns);
	r->tid = pid_nr_at(t, level, &ns);
	r->fd = at;
	r->via = via;
	r->files = (u64)FIELD(direct, t, files);
	r->uid = LOAD(direct, struct cred, cred, euid.val);
	bpf_core_read_str(r->comm, sizeof(r->comm), &leader->comm);
	if (r->tid != r->pid)
		bpf_core_read_str(r->thread_comm, sizeof(r->thread_comm), &t->comm);
	return nr;
}

__noinline u32 note_holder_direct(u64 task, u32 via, s32 at)
{
	return note_holder(true, task, via, at);
}

/* The descriptors of one task, of which those before `next` were looked at. */
struct fd_walk {
	u64 run;
	u64 task;
	u64 tid;
	u64 leader;
	u64 files;
	u64 next;
	u64 work; /* that was spent on what was found, in this call */
	bool done;
	bool unseen; /* what was read of one was never the truth */
};

struct fd_walk fds;

/*
 * False if the file went while it was looked at: nobody holds it for us. Not static: the
 * verifier looks at it by itself, and once.
 */
__noinline int sight_direct(u64 task, u64 file, u32 via, s32 at);

/*
 * A part of them. Nothing keeps the table, which another one replaces when it grows
 * (expand_fdtable(), fs/file.c) and when the task leaves those who share it (unshare(2),
 * execve(2)): what was seen in one that was replaced meanwhile is looked at again. Not
 * static: see ROUNDS.
 */
__noinline int sight_fds(u64 task)
{
	u64 i = fds.next, n;
	u32 tries = zero;

	for (n = zero; n < ROUNDS && can_loop; n++) {
		u64 files = (u64)LOAD(true, struct task_struct, task, files), fdt, open, file;
		u64 rest = 0;
		bool done, stayed = true;

		barrier_var(n);
		if (!files) {
			fds.done = true;
			break;
		}
		fdt = (u64)LOAD(true, struct files_struct, files, fdt);
		done = i >= LOAD(true, struct fdtable, fdt, max_fds);
		if (!done) {
			open = (u64)LOAD(true, struct fdtable, fdt, open_fds);
			rest = number_at(true, open, i / 64) >> (i % 64);
		}
		if (rest & 1) {
			file = number_at(true, (u64)LOAD(true, struct fdtable, fdt, fd), i);
			stayed = sight_direct(task, file, VIA_DESCRIPTOR, i);
		}
		/* The same address may be that of another table by now: not `stayed` says more. */
		if (!stayed || (u64)LOAD(true, struct task_struct, task, files) != files ||
		    (u64)LOAD(true, struct files_struct, files, fdt) != fdt) {
			if (++tries < MAX_TRIES)
				continue;
			fds.unseen = true;
		}
		tries = zero;
		if (done) {
			fds.done = true;
			break;
		}
		/* To the next word if this one has no more; zero, or the verifier would count. */
		i = (rest ? i : i | 63) + 1 + zero;
		if (fds.work > MAX_WORK)
			break;
	}
	fds.next = i;
	return 0;
}

/*
 * False if there are more, for another call: the kernel cannot stop us, nor let others run
 * meanwhile. Threads that share the descriptors of their leader are passed over.
 */
static __always_inline bool sight_descriptors(u64 task)
{
	u64 leader = ADDRESS(struct task_struct, task, group_leader);
	u64 tid = LOAD(true, struct task_struct, task, pid);
	u64 files = (u64)LOAD(true, struct task_struct, task, files);

	if (!request.alone && leader != task &&
	    files == (u64)LOAD(true, struct task_struct, leader, files))
		return true;
	/* Nor at those that threads share whose leader has ended, or has others. */
	if (!request.alone && fds.done && fds.run == request.run && fds.leader == leader && files &&
	    fds.files == files)
		return true;
	if (fds.run != request.run || fds.task != task || fds.tid != tid || fds.done)
		fds = (struct fd_walk){ .run = request.run,
					.task = task,
					.tid = tid,
					.leader = leader,
					.files = files };
	fds.work = 0;
	sight_fds(task);
	if (fds.done && fds.unseen)
		note_holder_direct(task, VIA_UNSEEN_FDS, -1);
	return fds.done;
}

#endif
