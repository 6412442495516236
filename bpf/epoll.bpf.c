// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The items of one epoll set: a red-black tree, ordered by file and number
 * (fs/eventpoll.c). ep->mtx guards it.
 */
#include "epoll.h"
#include "loop.h"

typedef struct epoll_item record_t;

#include "room.h"

/* Up to the inode: who uses a file moves its position without the lock. */
#define STABLE_WORDS 4
#define MAX_SLOTS MAX_ITEMS

/*
 * No path of a red-black tree is longer than 2 * log2(items + 1). One that is
 * was read while somebody changed the tree.
 */
#define MAX_DEPTH 64

/* The items of a set, in their order. */
typedef struct {
	u64 slots; /* the root node */
	u64 tree;
	u64 next; /* the item to be shown next */
	u32 nr;
} table_t;

#define same_table(a, b) ((a)->nr == (b)->nr && (a)->slots == (b)->slots)

/*
 * A word of kernel memory, as a plain number. struct rb_node: a kernel type
 * that begins with one.
 */
static __always_inline u64 word_at(const bool direct, u64 addr)
{
	return LOAD(direct, struct rb_node, addr, __rb_parent_color);
}

static __always_inline u64 left_of(const bool direct, u64 node)
{
	return word_at(direct, node + bpf_core_field_offset(struct rb_node, rb_left));
}

static __always_inline u64 right_of(const bool direct, u64 node)
{
	return word_at(direct, node + bpf_core_field_offset(struct rb_node, rb_right));
}

/* Its low bit is the colour, the one above is not used. */
static __always_inline u64 parent_of(const bool direct, u64 node)
{
	return word_at(direct, node) & ~3ULL;
}

/* rb_next(), lib/rbtree.c. 0 at the end, and where the tree makes no sense. */
static __always_inline u64 successor(const bool direct, u64 node)
{
	u64 child = right_of(direct, node), parent;

	if (child) {
		for (u32 depth = 0; depth < MAX_DEPTH; depth++) {
			node = child;
			child = left_of(direct, node);
			if (!child)
				return node;
		}
		return 0;
	}
	for (u32 depth = 0; depth < MAX_DEPTH; depth++) {
		parent = parent_of(direct, node);
		if (!parent || right_of(direct, parent) != node)
			return parent;
		node = parent;
	}
	return 0;
}

/* Not static: the verifier looks at them by themselves, and once. */
__noinline u64 successor_direct(u64 node)
{
	return successor(true, node);
}

__noinline u64 successor_compat(u64 node)
{
	return successor(false, node);
}

static __always_inline u64 next_item(const bool direct, u64 node)
{
	return direct ? successor_direct(node) : successor_compat(node);
}

static __always_inline u64 owner_of(const bool direct, u64 ep)
{
	return mutex_owner(direct, struct eventpoll, ep, mtx);
}

/*
 * Each time from the tree: an item that was the first may have left it, and
 * what is left of that looks like an item until its memory is used anew.
 */
static __always_inline void rewind(const bool direct, table_t *t)
{
	t->next = word_at(direct,
			  t->tree + bpf_core_field_offset(struct rb_root_cached, rb_leftmost));
}

/* One more than there may be: so many are too many. */
#define MAX_COUNT (MAX_ITEMS + 1)

static long count_item(u64 i, table_t *t)
{
	if (!t->next)
		return 1;
	t->next = next_item(false, t->next);
	t->nr = i + 1;
	return 0;
}

/* The count that goes on from one call to the next, as a walk does (verify.h). */
table_t counting;

#define COUNTED (1 << 15)

__noinline int count_part(void)
{
	table_t *t = &counting;
	u64 i;

	for_each_slot_direct(i, COUNTED, COUNTED) {
		if (!t->next)
			break;
		t->next = next_item(true, t->next);
	}
	t->nr += i;
	return 0;
}

/* The kernel does not keep the number of items: they are counted. */
static __always_inline void count_items(const bool direct, table_t *t)
{
	rewind(direct, t);
	t->nr = 0;
	if (!direct) {
		bpf_loop(MAX_COUNT, count_item, t, 0);
		return;
	}
	counting = *t;
	for (u32 from = 0; from < MAX_COUNT && counting.next; from += COUNTED)
		count_part();
	*t = counting;
}

static __always_inline u32 open_table(const bool direct, u64 ep, table_t *t)
{
	/* A native iterator shows the set that it was attached to, whichever that is. */
	if (request.set && ep != request.set)
		return WALK_ANOTHER;
	t->tree = ep + bpf_core_field_offset(struct eventpoll, rbr);
	t->slots = word_at(direct, t->tree + bpf_core_field_offset(struct rb_root_cached, rb_root));
	count_items(direct, t);
	/* A tree that is being changed may have no end. */
	if (t->nr > MAX_ITEMS && request.mode != WALK_LOCKED && owner_of(direct, ep))
		return WALK_CHANGED;
	return WALK_DONE;
}

static __always_inline void load_item(const bool direct, u64 epi, record_t *r)
{
	u64 file = word_at(direct, epi + bpf_core_field_offset(struct epitem, ffd.file));

	__builtin_memset(r, 0, sizeof(*r));
	r->data = LOAD(direct, struct epitem, epi, event.data);
	r->events = LOAD(direct, struct epitem, epi, event.events);
	r->fd = LOAD(direct, struct epitem, epi, ffd.fd);
	load_file(direct, file, &r->file);
}

static __always_inline bool at_end(const table_t *t)
{
	return !t->next;
}

static __always_inline bool load_record(const bool direct, table_t *t,
					u64 i __attribute__((unused)), record_t *r)
{
	u64 node = t->next;

	if (!node)
		return false;
	load_item(direct, node - bpf_core_field_offset(struct epitem, rbn), r);
	t->next = next_item(direct, node);
	return true;
}

#include "native.h"
#include "verify.h"

/*
 * All epoll files share one inode. A set is known by the number of its
 * descriptor, and, from the second look on, by its address, too.
 */
static __always_inline u64 wanted(const bool direct, u64 file)
{
	u64 ep = set_of(direct, file);

	if (!ep || (request.set && ep != request.set))
		return 0;
	reply.set = ep;
	return ep;
}

#include "place.h"

/* An item that the kernel shows us. False at the end. */
static __always_inline bool shown(const bool direct, struct bpf_iter__epoll *it, record_t *r)
{
	u64 epi = (u64)it->epi;

	if (!epi)
		return false;
	load_item(direct, epi, r);
	return true;
}

NATIVE_PROGRAMS("iter/epoll", struct bpf_iter__epoll, ep)
