/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One table of one ring, written as records into memory that user space has
 * mapped: the walk, and the programs that find the ring. An object says which
 * table, before it includes this:
 *
 *   record_t                  what there is one of for each slot
 *   STABLE_WORDS              how much of it, as u64, only changes with the table
 *   MAX_SLOTS                 no table is larger
 *   open_table(direct, ctx, t)    where the slots are: the status of the walk
 *   load_record(direct, t, i, r)  slot i
 *   record_at(i)              where its record belongs, NULL if there is no room
 *
 * A walk without the lock is accepted only if uring_lock was free before every
 * record and after the last one, if table pointer and size are the same at the
 * end, if a second pass finds every record equal to the first, and if the
 * reader kept its CPU all the while: what then hides a change has to fit
 * between two looks at the lock, and be undone before the second pass.
 *
 * Each program has a twin `_compat` for kernels before 6.9.
 */
#ifndef URING_DUMP_H
#define URING_DUMP_H

#include "request.h"
#include "walk.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define IORING_REGISTER_PROBE 8 /* include/uapi/linux/io_uring.h */

struct walk {
	u64 ctx;
	struct table table;
	u64 switches;
	u64 next; /* slot */
	u32 mode;
	u32 status;
};

/* How often the reader has left its CPU, of its own will or not. */
static __always_inline u64 context_switches(void)
{
	struct task_struct *me = (void *)bpf_get_current_task();

	return BPF_CORE_READ(me, nvcsw) + BPF_CORE_READ(me, nivcsw);
}

static __always_inline void describe_owner(u64 owner)
{
	struct task_struct *task = (void *)owner;
	u32 level = reader_level(), ns;

	reply.owner = owner;
	reply.pidns_level = level;
	pid_nr_at((void *)bpf_get_current_task(), level, &ns);
	reply.pidns_inode = ns;
	if (!owner)
		return;
	reply.owner_tid = pid_nr_at(task, level, &ns);
	reply.owner_pid = pid_nr_at(BPF_CORE_READ(task, group_leader), level, &ns);
	reply.owner_sleeps = BPF_CORE_READ(task, __state) != 0;
	BPF_CORE_READ_STR_INTO(&reply.owner_comm, task, comm);
}

/* The table as it is now, if it can be walked; else the status that says why. */
static __always_inline void begin(const bool direct, struct walk *w)
{
	w->switches = context_switches();
	w->status = open_table(direct, w->ctx, &w->table);
	reply.nr_slots = w->table.nr;
	if (w->status == WALK_DONE && w->table.nr > request.capacity)
		w->status = WALK_TOO_MANY;
}

static __always_inline bool same_record(const record_t *a, const record_t *b)
{
	const u64 *x = (const void *)a, *y = (const void *)b;
	u64 diff = 0;

	for (u32 i = 0; i < STABLE_WORDS; i++)
		diff |= x[i] ^ y[i];
	barrier_var(diff); /* one branch, not one a field */
	return !diff;
}

/* Slot i: write its record, or see that it still is what its record says. */
static __always_inline bool visit(const bool direct, const bool again, struct walk *w, u64 i)
{
	record_t r, *to;

	if (w->mode == WALK_VERIFIED && lock_owner(direct, w->ctx)) {
		w->status = WALK_LOCK_HELD;
		return false;
	}
	to = record_at(i);
	if (!to) {
		w->status = WALK_TOO_MANY;
		return false;
	}
	load_record(direct, &w->table, i, &r);
	if (!again) {
		*to = r;
	} else if (!same_record(to, &r)) {
		w->status = WALK_CHANGED;
		return false;
	}
	return true;
}

static __always_inline void finish(const bool direct, struct walk *w)
{
	struct table now;

	if ((w->status == WALK_DONE || w->status == WALK_NO_SLOT) && w->mode == WALK_VERIFIED) {
		u32 status = open_table(direct, w->ctx, &now);

		if (lock_owner(direct, w->ctx))
			w->status = WALK_LOCK_HELD;
		else if (status != w->status || now.nr != w->table.nr ||
			 now.slots != w->table.slots || context_switches() != w->switches)
			w->status = WALK_CHANGED;
	}
	if (w->status == WALK_LOCK_HELD)
		describe_owner(lock_owner(direct, w->ctx));
	reply.status = w->status;
}

static long visit_first(u64 i, struct walk *w)
{
	return i >= MAX_SLOTS || !visit(false, false, w, i);
}

static long visit_again(u64 i, struct walk *w)
{
	return i >= MAX_SLOTS || !visit(false, true, w, i);
}

static __always_inline void pass_compat(const bool again, struct walk *w)
{
	long n = bpf_loop(w->table.nr, again ? (void *)visit_again : (void *)visit_first, w, 0);

	if (w->status == WALK_DONE && n != w->table.nr)
		w->status = WALK_CUT_SHORT;
}

/*
 * may_goto ends after a quarter of a second (6.15 on), which a large table may
 * take; in a program at a tracepoint even after 65,535 rounds (seen on 6.18).
 * Each call of a function that is not static begins anew.
 */
#define ROUNDS (1 << 15)

/* The walk that goes on from one such call to the next. */
struct walk current;

/* Slots from `from` on; the verifier does not know which these are. */
__noinline int pass_part(u64 from, bool again)
{
	struct walk *w = &current;
	u64 i;

	for (i = from; i < w->table.nr && can_loop; i++) {
		barrier_var(i);
		if (i >= MAX_SLOTS || i - from >= ROUNDS)
			break;
		if (!visit(true, again, w, i))
			break;
	}
	current.next = i;
	return 0;
}

static __always_inline void pass_direct(const bool again, struct walk *w)
{
	u64 from;

	for (from = 0; from < MAX_SLOTS && w->status == WALK_DONE; from += ROUNDS) {
		pass_part(from, again);
		if (w->next < from + ROUNDS)
			break;
	}
	if (w->status == WALK_DONE && w->next < w->table.nr)
		w->status = WALK_CUT_SHORT;
}

static __always_inline void walk(const bool direct, struct walk *w)
{
	if (w->mode == WALK_PEEK) {
		describe_owner(lock_owner(direct, w->ctx));
		reply.status = WALK_DONE;
		return;
	}
	begin(direct, w);
	if (w->status == WALK_DONE)
		direct ? pass_direct(false, w) : pass_compat(false, w);
	if (w->status == WALK_DONE && w->mode == WALK_VERIFIED)
		direct ? pass_direct(true, w) : pass_compat(true, w);
	finish(direct, w);
}

/* Not static: the verifier looks at them by themselves, and once. */
__noinline int walk_direct(u64 ctx)
{
	current = (struct walk){ .ctx = ctx, .mode = request.mode };
	walk(true, &current);
	return 0;
}

__noinline int walk_compat(u64 ctx)
{
	struct walk w = { .ctx = ctx, .mode = request.mode };

	walk(false, &w);
	return 0;
}

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
		ctx = wanted_ring(true, (u64)vma->vm_file);
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
	u64 ctx = args[0];
	u32 ns;

	if ((u32)args[1] != IORING_REGISTER_PROBE || request.mode != WALK_LOCKED ||
	    reply.status != WALK_NOT_FOUND)
		return 0;
	if (pid_nr_at(me, request.pidns_level, &ns) != request.observer ||
	    ns != request.pidns_inode)
		return 0;
	if (lock_owner(true, ctx) != (u64)me)
		reply.status = WALK_NOT_LOCKED;
	else
		walk_ring(true, ctx);
	return 0;
}

/*
 * The native iterators call their program under uring_lock, once a slot. What
 * is written twice, because the kernel began a slot anew, is written the same.
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
 *
 * One puts records in their place, the other into the stream.
 */
#define NATIVE_PROGRAMS(section, context)                                       \
	static __always_inline int dump_shown(const bool direct, context *it)   \
	{                                                                       \
		record_t r;                                                     \
                                                                                \
		if (!shown(direct, it, &r))                                     \
			return end_native(it->index);                           \
		put_native(it->index, &r);                                      \
		return 0;                                                       \
	}                                                                       \
                                                                                \
	static __always_inline int stream_shown(const bool direct, context *it) \
	{                                                                       \
		record_t r;                                                     \
                                                                                \
		if (shown(direct, it, &r))                                      \
			bpf_seq_write(it->meta->seq, &r, sizeof(r));            \
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
