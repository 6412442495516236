/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One table, written as records into memory that user space has mapped. An
 * object says which table, before it includes this:
 *
 *   record_t                  what there is one of for each slot
 *   STABLE_WORDS              how much of it, as u64, only changes with the table
 *   MAX_SLOTS                 no table is larger
 *   table_t                   where its `nr` slots are
 *   same_table(a, b)              whether these are one
 *   owner_of(direct, ctx)         who holds the lock of the table, 0 for nobody
 *   open_table(direct, ctx, t)    where the slots are: the status of the walk
 *   rewind(direct, t)             slot 0, as it is now, is to come
 *   load_record(direct, t, i, r)  slot i, after the one before; false if it is gone
 *   load_stable(direct, t, i, r)  if that is less work: the STABLE_WORDS of it alone
 *   at_end(t)                 no slot is to come
 *   target(slot), touch(at)   if it helps to load in advance what records are made of:
 *                             what is at the end of what a slot holds, and a look at it
 *   room_t, room()            where the records belong, NULL if there is no room at all
 *   record_at(room, i)        where that of slot i belongs, NULL if there is no room
 *
 * A walk without the lock is accepted only if the lock was free before every
 * record and after the last one, if table and size are the same after each pass,
 * if a second pass finds every record equal to the first, and if the reader kept
 * its CPU all the while: what then hides a change has to fit between two looks
 * at the lock, and be undone before the second pass.
 */
#ifndef URING_VERIFY_H
#define URING_VERIFY_H

#include "task.h"
#include "loop.h"
#include "request.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#ifndef load_stable
#define load_stable load_record
#endif

struct walk {
	u64 ctx;
	table_t table;
	u64 switches;
	u64 next; /* slot */
	u32 mode;
	u32 status;
};

static __always_inline void describe_owner(u64 owner)
{
	struct task_struct *task = (void *)owner;
	u32 level = reader_level();
	u64 ns;

	reply.owner = owner;
	reply.pidns_level = level;
	pid_nr_at((void *)bpf_get_current_task(), level, &ns);
	reply.pidns = ns;
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
static __always_inline bool visit(const bool direct, const bool again, struct walk *w, room_t *room,
				  u64 i)
{
	record_t r, *to;

	if (w->mode == WALK_VERIFIED && owner_of(direct, w->ctx)) {
		w->status = WALK_LOCK_HELD;
		return false;
	}
	to = room ? record_at(room, i) : NULL;
	if (!to) {
		w->status = WALK_TOO_MANY;
		return false;
	}
	/* One way or the other to the end: the verifier does not remember which it was. */
	if (again) {
		if (load_stable(direct, &w->table, i, &r) && same_record(to, &r))
			return true;
	} else if (load_record(direct, &w->table, i, &r)) {
		*to = r;
		return true;
	}
	w->status = WALK_CHANGED;
	return false;
}

/*
 * Whether the walk was of the table that is there now. Where its slots are may be
 * memory that is free by then, and next time have become such a table again: the
 * passes are not to be of different moments of it.
 */
static __always_inline void look_again(const bool direct, struct walk *w)
{
	/* A size that there is no room for, too: in memory that is free it is none. */
	u32 found = w->status == WALK_TOO_MANY ? WALK_DONE : w->status, status;
	table_t now;

	if ((found != WALK_DONE && found != WALK_NO_SLOT) || w->mode != WALK_VERIFIED)
		return;
	status = open_table(direct, w->ctx, &now);
	if (owner_of(direct, w->ctx))
		w->status = WALK_LOCK_HELD;
	else if (status != found || !same_table(&now, &w->table) ||
		 context_switches() != w->switches)
		w->status = WALK_CHANGED;
}

static __always_inline void finish(const bool direct, struct walk *w)
{
	look_again(direct, w);
	if (w->status == WALK_LOCK_HELD)
		describe_owner(owner_of(direct, w->ctx));
	reply.status = w->status;
}

/* All slots were visited, and the table has no other. */
static __always_inline void end_pass(struct walk *w, u64 visited)
{
	if (w->status != WALK_DONE)
		return;
	if (visited != w->table.nr)
		w->status = WALK_CUT_SHORT;
	else if (!at_end(&w->table))
		w->status = WALK_CHANGED;
}

static long visit_first(u64 i, struct walk *w)
{
	return i >= MAX_SLOTS || !visit(false, false, w, room(), i);
}

static long visit_again(u64 i, struct walk *w)
{
	return i >= MAX_SLOTS || !visit(false, true, w, room(), i);
}

static __always_inline void pass_compat(const bool again, struct walk *w)
{
	long n;

	rewind(false, &w->table);
	n = bpf_loop(w->table.nr, again ? (void *)visit_again : (void *)visit_first, w, 0);
	end_pass(w, n);
}

/* The walk that goes on from one such call to the next. */
struct walk current;

/* A part of a table: little enough to stay in the caches that are near. */
#define PART (1 << 8)

/* The slots of a part; the verifier does not know which these are. */
static __always_inline void pass_part(u64 from, const bool again)
{
	struct walk *w = &current;
	room_t *to = room();
	u64 i;

	for (i = from; i < w->table.nr && can_loop; i++) {
		barrier_var(i);
		if (i >= MAX_SLOTS || i - from >= PART)
			break;
		if (!visit(true, again, w, to, i))
			break;
	}
	current.next = i;
}

/* A function for each: one that does both would be looked at twice in each slot. */
__noinline int first_part(u64 from)
{
	pass_part(from, false);
	return 0;
}

__noinline int second_part(u64 from)
{
	pass_part(from, true);
	return 0;
}

#ifdef touch
/* So many slots are near when they are read again. */
#define NEAR (1 << 12)

/* So many loads a round: a round that is short is one of many under way. */
#define ABREAST 4

u64 seen_at[PART]; /* of each slot of a part: what is to be touched */
u64 touched; /* never read: for clang, the last loads are for something */

/* What the slots of a part are. */
__noinline int slots_part(u64 from)
{
	const table_t t = current.table;
	u64 n;

	for (n = zero; from + n < t.nr && can_loop; n++) {
		barrier_var(n);
		if (n >= PART)
			break;
		seen_at[n] = number_at(true, t.slots, from + n);
	}
	return 0;
}

/* A loop over all of these, some at a time. */
#define for_each_abreast(n, nr)                            \
	for (n = zero; n < (nr) && can_loop; n += ABREAST) \
		if (({                                     \
			    barrier_var(n);                \
			    n >= PART;                     \
		    }))                                    \
			break;                             \
		else                                       \
			for (u64 k = 0; k < ABREAST; k++)

/* What these point to; up to 6.12 that is all. */
__noinline int near_part(u64 nr)
{
	u64 n;

	for_each_abreast(n, nr)
	{
		u64 *at = &seen_at[(n + k) & (PART - 1)];

		*at = n + k < nr ? target(*at) : 0;
	}
	return 0;
}

__noinline int far_part(u64 nr)
{
	u64 n, sum = zero;

	for_each_abreast(n, nr) sum ^= touch(seen_at[(n + k) & (PART - 1)]);
	touched = sum;
	return 0;
}

/*
 * Has the memory of a part come to the processor all at once: a loop that does no
 * more than load is many slots ahead of what it waits for, and one that makes
 * records is two or three.
 */
static __always_inline void touch_part(const struct walk *w, u64 from)
{
	u64 nr = w->table.nr - from;

	slots_part(from);
	near_part(nr);
	far_part(nr);
}
#else
#define NEAR MAX_SLOTS
#define touch_part(w, from) ((void)(from))
#endif

/* Parts, one after the other. */
__noinline int pass_round(u64 from, bool again)
{
	struct walk *w = &current;
	u64 at, n;

	for (n = zero; n < ROUNDS && can_loop; n += PART) {
		barrier_var(n);
		at = from + n;
		if ((request.cold && !again) || w->table.nr > NEAR)
			touch_part(w, at);
		again ? second_part(at) : first_part(at);
		if (w->next < at + PART)
			break;
	}
	return 0;
}

static __always_inline void pass_direct(const bool again, struct walk *w)
{
	u64 from;

	rewind(true, &w->table);
	for (from = 0; from < MAX_SLOTS && w->status == WALK_DONE; from += ROUNDS) {
		pass_round(from, again);
		if (w->next < from + ROUNDS)
			break;
	}
	end_pass(w, w->next);
}

static __always_inline void walk(const bool direct, struct walk *w)
{
	if (w->mode == WALK_PEEK) {
		describe_owner(owner_of(direct, w->ctx));
		reply.status = WALK_DONE;
		return;
	}
	begin(direct, w);
	if (w->status == WALK_DONE)
		direct ? pass_direct(false, w) : pass_compat(false, w);
	if (w->status == WALK_DONE)
		look_again(direct, w);
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

#endif
