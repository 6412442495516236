/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How fields of kernel structures are loaded. A pointer to a ring comes out of
 * file->private_data, so the verifier knows no type for it. `direct` says how to
 * load through such pointers: true for a plain load (bpf_rdonly_cast, 6.2 on; a
 * fault reads as 0), false for bpf_probe_read_kernel. It is always a literal.
 */
#ifndef URING_LOAD_H
#define URING_LOAD_H

#include "core.h"

extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

#define CAST(type, ptr) ((type *)bpf_rdonly_cast((ptr), bpf_core_type_id_kernel(type)))

/* A number as what it points to, for FIELD(): as good as free, but clang keeps
 * nothing in registers over it.
 */
#define AS(direct, type, ptr) ((direct) ? CAST(type, (void *)(ptr)) : (type *)(ptr))

/* A field of what AS() has given, or the iterator itself. */
#define FIELD(direct, ptr, field)                                        \
	({                                                               \
		typeof((ptr)->field) __v;                                \
		if (direct)                                              \
			__v = (ptr)->field;                              \
		else                                                     \
			bpf_core_read(&__v, sizeof(__v), &(ptr)->field); \
		__v;                                                     \
	})

/* `ptr` is a number, not an expression that looks into a struct of ours. */
#define LOAD(direct, type, ptr, field)                 \
	({                                             \
		type *__p = AS((direct), type, (ptr)); \
		FIELD((direct), __p, field);           \
	})

/* The i-th pointer of an array of pointers in kernel memory. */
static __always_inline u64 pointer_at(const bool direct, u64 array, u64 i)
{
	u64 p = 0;

	/* struct rb_root: a kernel type that begins with a pointer. */
	if (direct)
		return (u64)CAST(struct rb_root, (void *)(array + i * sizeof(p)))->rb_node;
	bpf_probe_read_kernel(&p, sizeof(p), (void *)(array + i * sizeof(p)));
	return p;
}

/* The i-th number of an array of u64 in kernel memory. */
static __always_inline u64 number_at(const bool direct, u64 array, u64 i)
{
	/* struct io_mapped_ubuf: a kernel type that begins with a u64. */
	return LOAD(direct, struct io_mapped_ubuf, array + i * sizeof(u64), ubuf);
}

/* A field that is a pointer, as a plain number: no verifier knows a type for it. */
#define ADDRESS(type, ptr, field) \
	number_at(true, (u64)(ptr) + bpf_core_field_offset(type, field), 0)

/*
 * Who holds the mutex `member` of a structure, 0 for nobody. The low bits of
 * mutex.owner are flags (kernel/locking/mutex.h); of an rt_mutex one is
 * (kernel/locking/rtmutex.c).
 */
#define mutex_owner(direct, type, ptr, member)                               \
	(bpf_core_field_exists(type, member.owner)                           \
		 ? LOAD((direct), type, (ptr), member.owner.counter) & ~7ULL \
		 : (u64)LOAD((direct), type##___rt, (ptr), member.rtmutex.owner) & ~1ULL)

#endif
