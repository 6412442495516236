// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Every way in which a task holds a ring: a descriptor, a registered
 * descriptor, a mapping. One sighting each; user space puts those of one ring
 * together.
 *
 * find_rings() does all of it. Kernels before 6.9 have three programs `_compat` instead.
 */
#include "ring.h"
#include "table.h"

typedef struct ring_sighting sighting_t;

#include "find.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define ENOENT 2

/* The rings that were described, and in which run: each is described once. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct ring_key);
	__type(value, u64);
} described SEC(".maps");

/* So many slots of files are counted while one of buffers is added up. */
#define FILES_PER_BUF 16

/* What the buffers of a ring add up to, and whether it held still meanwhile. */
struct sum {
	u64 ctx;
	struct table table;
	u64 pages;
	u64 acct_pages;
	u64 filled;
	u64 digest; /* of all records, in their order */
	u64 moved; /* 0: it held still */
	u8 page_shift;
};

#define ODD 0x9e3779b97f4a7c15ULL /* as in include/linux/hash.h: 2^64 by the golden ratio */

/* Two passes are of the same records if their digests are equal, but for one in 2^64. */
static __always_inline u64 digest(u64 before, const struct registered_buf *r)
{
	const u64 *word = (const void *)r;

	for (u32 i = 0; i < sizeof(*r) / sizeof(*word); i++) {
		before = (before ^ word[i]) * ODD;
		before ^= before >> 32;
	}
	return before;
}

static __always_inline void add_slot(const bool direct, struct sum *s, u64 i)
{
	struct registered_buf r;

	s->moved |= lock_owner(direct, s->ctx);
	if (!load_slot(direct, &s->table, i, s->page_shift, &r))
		return;
	s->digest = digest(s->digest, &r);
	s->filled++;
	if (!(r.flags & BUF_KERNEL))
		s->pages += touched_pages(&r);
	/* Else a constant, by which the verifier would count the rounds. */
	if (bpf_core_field_exists(struct io_mapped_ubuf___later, acct_pages))
		s->acct_pages += r.acct_pages;
}

static __always_inline bool sum_begins(const bool direct, struct sum *s)
{
	load_table(direct, s->ctx, &s->table);
	s->moved = !is_settled(&s->table) || s->table.nr > MAX_BUFS;
	return !s->moved;
}

static __always_inline void sum_ends(const bool direct, struct sum *s, bool complete)
{
	struct table now;

	load_table(direct, s->ctx, &now);
	s->moved |= !complete || lock_owner(direct, s->ctx) || now.nr != s->table.nr ||
		    now.slots != s->table.slots;
}

/* Not static, like others below: the verifier looks at it by itself, and once. */
__noinline int sum_direct(struct sum *s)
{
	u64 i;

	if (!s || !sum_begins(true, s))
		return 0;
	for_each_slot_direct(i, s->table.nr, MAX_BUFS)
		add_slot(true, s, i);
	sum_ends(true, s, i >= s->table.nr);
	return 0;
}

static long add_slot_compat(u64 i, struct sum **s)
{
	add_slot(false, *s, i);
	return 0;
}

__noinline int sum_compat(struct sum *s)
{
	if (s && sum_begins(false, s))
		sum_ends(false, s, bpf_loop(s->table.nr, add_slot_compat, &s, 0) == s->table.nr);
	return 0;
}

static __always_inline void describe_buffers(const bool direct, u64 ctx, struct ring_sighting *r)
{
	/* zero: not a constant, which the verifier would count up with us */
	struct sum a = { .ctx = ctx, .page_shift = request.page_shift, .filled = zero }, b = a;
	u64 switches = context_switches();

	if (direct) {
		sum_direct(&a);
		sum_direct(&b);
	} else {
		sum_compat(&a);
		sum_compat(&b);
	}
	r->nr_bufs = is_settled(&b.table) ? b.table.nr : ~0u;
	r->nr_filled = b.filled;
	r->pages = b.pages;
	r->acct_pages = b.acct_pages;
	if (!a.moved && !b.moved && a.digest == b.digest && a.table.nr == b.table.nr &&
	    a.table.slots == b.table.slots && context_switches() == switches)
		r->flags |= RING_SUM_VERIFIED;
	if (bpf_core_field_exists(struct io_mapped_ubuf___later, acct_pages))
		r->flags |= RING_ACCT_KNOWN;
}

#define MAX_FILES (1 << 20) /* IORING_MAX_FIXED_FILES, io_uring/rsrc.h */
#define NOT_COUNTED (~0u)

/* The filled slots of a table of files, those before `next`. */
struct file_count {
	struct table table;
	u64 next;
	u64 filled;
};

/* A slot is a node (6.13 on), or a file. */
static __always_inline void count_slot(const bool direct, struct file_count *c, u64 i)
{
	c->filled += !!(number_at(direct, c->table.slots, i) & FILE_MASK);
}

/* Not static: see ROUNDS. */
__noinline int count_part(struct file_count *c)
{
	u64 from, n;

	if (!c)
		return 0;
	from = c->next;
	for_each_slot_direct(n, ROUNDS, ROUNDS) {
		if (from + n >= c->table.nr)
			break;
		count_slot(true, c, from + n);
	}
	c->next = from + n;
	return 0;
}

static long count_slot_compat(u64 i, struct file_count **c)
{
	count_slot(false, *c, i);
	return 0;
}

static __always_inline void count_slots(const bool direct, struct file_count *c)
{
	u64 n;

	if (!direct) {
		c->next = bpf_loop(c->table.nr, count_slot_compat, &c, 0);
		return;
	}
	for_each_slot_direct(n, MAX_FILES / ROUNDS, MAX_FILES / ROUNDS) {
		if (c->next >= c->table.nr)
			break;
		count_part(c);
	}
}

/* One pass, if the table held still: else NOT_COUNTED. */
static __always_inline u32 count_files(const bool direct, u64 ctx)
{
	struct file_count c = { .filled = zero };
	struct table now;

	load_file_table(direct, ctx, &c.table);
	if (!is_settled(&c.table) || c.table.nr > MAX_FILES || lock_owner(direct, ctx))
		return NOT_COUNTED;
	count_slots(direct, &c);
	load_file_table(direct, ctx, &now);
	if (lock_owner(direct, ctx) || now.nr != c.table.nr || now.slots != c.table.slots ||
	    c.next < c.table.nr)
		return NOT_COUNTED;
	return c.filled;
}

__noinline u32 count_files_direct(u64 ctx)
{
	return count_files(true, ctx);
}

__noinline u32 count_files_compat(u64 ctx)
{
	return count_files(false, ctx);
}

/* Twice, as buffers are added up. */
static __always_inline void describe_files(const bool direct, u64 ctx, struct ring_sighting *r)
{
	u32 a = direct ? count_files_direct(ctx) : count_files_compat(ctx);
	u32 b = direct ? count_files_direct(ctx) : count_files_compat(ctx);

	r->nr_files_filled = a == b ? a : NOT_COUNTED;
}

static __always_inline void describe_sqpoll(const bool direct, u64 sqd, struct ring_sighting *r)
{
	struct io_sq_data *data = AS(direct, struct io_sq_data, sqd);
	struct task_struct *thread;
	u64 ns;

	r->sqpoll_cpu = -1;
	if (!sqd)
		return;
	r->sqpoll_cpu = FIELD(direct, data, sq_cpu);
	thread = FIELD(direct, data, thread);
	if (!thread)
		return;
	r->sqpoll_tid = pid_nr_at(thread, reader_level(), &ns);
	r->flags |= RING_SQPOLL_THREAD;
}

static __always_inline void describe(const bool direct, u64 ctx, struct ring_sighting *r)
{
	struct io_ring_ctx *ring = AS(direct, struct io_ring_ctx, ctx);
	struct io_rings *rings = AS(direct, struct io_rings, load_rings(direct, ctx));
	struct user_struct *user = FIELD(direct, ring, user);
	struct table files;

	r->setup_flags = FIELD(direct, ring, flags);
	r->sq_entries = FIELD(direct, ring, sq_entries);
	r->cq_entries = FIELD(direct, ring, cq_entries);
	load_file_table(direct, ctx, &files);
	r->nr_files = files.nr;
	if (rings) {
		r->sq_head = FIELD(direct, rings, sq.head);
		r->sq_tail = FIELD(direct, rings, sq.tail);
		r->cq_head = FIELD(direct, rings, cq.head);
		r->cq_tail = FIELD(direct, rings, cq.tail);
	}
	/* No user: the creator had CAP_IPC_LOCK, nothing is charged. */
	if (user) {
		r->flags |= RING_CHARGED;
		user = AS(direct, struct user_struct, user);
		r->charged_uid = FIELD(direct, user, uid.val);
		r->user_locked_pages = FIELD(direct, user, locked_vm.counter);
	}
	describe_sqpoll(direct, (u64)FIELD(direct, ring, sq_data), r);
	describe_buffers(direct, ctx, r);
	describe_files(direct, ctx, r);
}

__noinline int describe_direct(u64 ctx, struct ring_sighting *r)
{
	if (r)
		describe(true, ctx, r);
	return 0;
}

__noinline int describe_compat(u64 ctx, struct ring_sighting *r)
{
	if (r)
		describe(false, ctx, r);
	return 0;
}

static __always_inline bool is_ring_of(const bool direct, u64 file, struct ring_key *key)
{
	if (!file || !is_ring(direct, file))
		return false;
	key->ring = ring_of(file);
	key->inode = inode_of(direct, file);
	return key->ring;
}

static __always_inline void sight_ring(const bool direct, u64 task, u64 file, struct ring_key *key,
				       u32 via, s32 at)
{
	u32 nr = direct ? note_holder_direct(task, via, at) : note_holder(false, task, via, at);
	struct ring_sighting *r = bpf_map_lookup_elem(&sightings, &nr);
	u64 *run, this_run, cred;

	if (!r)
		return;
	r->ring = key->ring;
	r->inode = key->inode;
	this_run = request.run;
	run = bpf_map_lookup_elem(&described, key);
	if (run && *run == this_run)
		return;
	/* Without room for it the ring is described again, no more. */
	bpf_map_update_elem(&described, key, &this_run, 0);
	r->flags |= RING_DESCRIBED;
	cred = (u64)LOAD(direct, struct file, file, f_cred);
	r->creator_uid = LOAD(direct, struct cred, cred, uid.val);
	direct ? describe_direct(key->ring, r) : describe_compat(key->ring, r);
	fds.work += r->nr_filled;
	if (r->nr_files_filled != NOT_COUNTED)
		fds.work += r->nr_files / FILES_PER_BUF;
}

/*
 * A file that a task holds, if it is a ring. The one of a mapping is held for us. Nobody
 * holds the others: such a one is forgotten if it went meanwhile, with what was said of
 * the ring, which others may hold. False then.
 */
static __always_inline bool sight(const bool direct, u64 task, u64 file, u32 via, s32 at)
{
	struct ring_key key;
	u64 before = reply.nr;

	if (!is_ring_of(direct, file, &key))
		return true;
	sight_ring(direct, task, file, &key, via, at);
	if (via == VIA_MAPPING ||
	    (file_there(direct, task, via, at) == file && ring_of(file) == key.ring &&
	     inode_of(direct, file) == key.inode))
		return true;
	reply.nr = before;
	bpf_map_delete_elem(&described, &key);
	return false;
}

__noinline int sight_direct(u64 task, u64 file, u32 via, s32 at)
{
	return sight(true, task, file, via, at);
}

/* A file that somebody holds for us. */
static __always_inline void sight_held_compat(u64 task, u64 file, u32 via, s32 at)
{
	struct ring_key key;

	if (is_ring_of(false, file, &key))
		sight_ring(false, task, file, &key, via, at);
}

SEC("iter/task_file")
int find_rings_file_compat(struct bpf_iter__task_file *it)
{
	struct task_struct *task = it->task;
	struct file *file = it->file;

	if (task && file)
		sight_held_compat((u64)task, (u64)file, VIA_DESCRIPTOR, it->fd);
	return 0;
}

static __always_inline void sight_registered(u64 task)
{
	u64 i;

	if (!has_registered_ring((void *)task))
		return;
	for (i = zero; i < NR_REGISTERED_RINGS && can_loop; i++)
		sight_direct(task, registered_ring((void *)task, i), VIA_REGISTERED, i);
}

/* The verifier looks at it once, and not once for each index. */
static long sight_registered_compat(u64 i, struct task_struct **task)
{
	sight(false, (u64)*task, registered_ring(*task, i), VIA_REGISTERED, i);
	return 0;
}

/*
 * This takes no lock that it would have to wait for; a process that is stuck
 * with its mmap_lock is named instead.
 */
static __always_inline void sight_mapped(struct task_struct *task, u64 plain)
{
	struct bpf_iter_task_vma it;
	struct vm_area_struct *vma;
	u64 file, last = 0;

	int error = bpf_iter_task_vma_new(&it, task, 0);

	/* ENOENT: no memory of its own, as with a kernel thread. */
	if (error && error != -ENOENT)
		note_holder_direct(plain, VIA_UNSEEN, -1);
	while ((vma = bpf_iter_task_vma_next(&it))) {
		file = file_of(vma);
		/* The queues of a ring and its SQEs are two mappings, mostly side by side. */
		if (file && file != last)
			sight_direct(plain, file, VIA_MAPPING, -1);
		last = file;
	}
	bpf_iter_task_vma_destroy(&it);
}

/* For one part of the ways to hold a ring at a time: see `part`. */
SEC("iter/task")
int find_rings(struct task_ctx *it)
{
	struct task_struct *task = it->task;
	u64 plain;

	if (!task)
		return 0;
	/* As a plain number, which the verifier takes for an argument. */
	bpf_probe_read_kernel(&plain, sizeof(plain), &it->task);
	if (request.part == FIND_MAPPED) {
		if (request.alone || speaks_for_memory(plain))
			sight_mapped(task, plain);
		return 0;
	}
	if (!sight_descriptors(plain))
		return 1;
	sight_registered(plain);
	return 0;
}

SEC("iter/task")
int find_rings_registered_compat(struct bpf_iter__task *it)
{
	struct task_struct *task = it->task;

	if (!task)
		return 0;
	bpf_loop(NR_REGISTERED_RINGS, sight_registered_compat, &task, 0);
	return 0;
}

SEC("iter/task_vma")
int find_rings_mapped_compat(struct bpf_iter__task_vma *it)
{
	struct task_struct *task = it->task;
	struct vm_area_struct *vma = it->vma;

	if (task && vma)
		sight_held_compat((u64)task, (u64)vma->vm_file, VIA_MAPPING, -1);
	return 0;
}
