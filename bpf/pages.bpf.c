// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The pages of one registered buffer of a ring, as segments. The table here is
 * the array of struct bio_vec of buffer `request.slot`; it does not change as
 * long as the buffer is registered.
 */
typedef struct segment record_t;

#include "room.h"
#include "table.h"

#define STABLE_WORDS (sizeof(record_t) / sizeof(u64))

/* Four times what a buffer of 1 GiB, the largest (io_buffer_validate(),
 * io_uring/rsrc.c), takes in pages of 4 KiB. */
#define MAX_SLOTS (1 << 20)

/* An empty slot is a table without segments. */
static __always_inline u32 open_table(const bool direct, u64 ctx, struct table *t)
{
	struct table bufs;
	u64 imu;

	load_table(direct, ctx, &bufs);
	*t = (struct table){};
	if (!is_settled(&bufs))
		return WALK_CHANGED;
	if (request.slot >= bufs.nr) {
		t->nr = bufs.nr;
		return WALK_NO_SLOT;
	}
	/* As a plain number: the verifier allows no arithmetic on a typed one. */
	imu = buf_at(false, &bufs, request.slot);
	if (imu) {
		t->nr = LOAD(direct, struct io_mapped_ubuf, imu, nr_bvecs);
		t->slots = imu + bpf_core_field_offset(struct io_mapped_ubuf, bvec);
	}
	return WALK_DONE;
}

static __always_inline u64 pfn_of(u64 page)
{
	if (!request.page_base || !page)
		return 0;
	return (page - request.page_base) / bpf_core_type_size(struct page);
}

/*
 * A segment that begins in a large folio is counted from its head, and its
 * offset may be more than a page (io_sqe_buffer_register(), io_uring/rsrc.c,
 * 6.12 on). Here it is counted from the page in which it begins.
 */
static __always_inline void put_segment(const bool direct, u64 bv, record_t *r)
{
	u32 offset = LOAD(direct, struct bio_vec, bv, bv_offset);
	/* As a plain number, too. */
	u64 page = number_at(direct, bv + bpf_core_field_offset(struct bio_vec, bv_page), 0);

	page += (offset >> request.page_shift) * bpf_core_type_size(struct page);
	r->page = page;
	r->pfn = pfn_of(page);
	r->offset = offset & ((1u << request.page_shift) - 1);
	r->len = LOAD(direct, struct bio_vec, bv, bv_len);
}

static __always_inline bool load_record(const bool direct, const struct table *t, u64 i,
					record_t *r)
{
	put_segment(direct, t->slots + i * bpf_core_type_size(struct bio_vec), r);
	return true;
}

#include "dump.h"

/* Of kernels with the patches in kernel/. */
struct bpf_iter_io_uring_bvec {
	__u64 opaque[2];
} __attribute__((aligned(8)));

extern int bpf_iter_io_uring_bvec_new(struct bpf_iter_io_uring_bvec *it,
				      struct io_mapped_ubuf *ubuf, u32 first) __ksym __weak;
extern struct bio_vec *bpf_iter_io_uring_bvec_next(struct bpf_iter_io_uring_bvec *it) __ksym __weak;
extern void bpf_iter_io_uring_bvec_destroy(struct bpf_iter_io_uring_bvec *it) __ksym __weak;

static __always_inline void dump_segments(struct io_mapped_ubuf *ubuf)
{
	struct bpf_iter_io_uring_bvec it;
	struct bio_vec *bv;
	u64 i = zero;

	bpf_iter_io_uring_bvec_new(&it, ubuf, 0);
	while ((bv = bpf_iter_io_uring_bvec_next(&it))) {
		record_t *to = record_at(room(), i++);

		if (to)
			put_segment(true, (u64)bv, to);
	}
	bpf_iter_io_uring_bvec_destroy(&it);
	reply.nr_slots = i;
	reply.status = i > request.capacity ? WALK_TOO_MANY : WALK_DONE;
}

/* By the kernel's own walk. 1: that was the slot, the others need not be shown. */
SEC("iter/io_uring_buf")
int dump_native(struct bpf_iter__io_uring_buf *it)
{
	struct io_mapped_ubuf *ubuf = it->ubuf;
	struct table bufs;

	if (ubuf) {
		if (it->index != request.slot)
			return 0;
		dump_segments(ubuf);
		return 1;
	}
	/* An empty slot, or the end. */
	load_table(true, (u64)it->ctx, &bufs);
	if (it->index >= bufs.nr) {
		reply.nr_slots = it->index;
		reply.status = WALK_NO_SLOT;
	} else if (it->index == request.slot) {
		reply.status = WALK_DONE;
		return 1;
	}
	return 0;
}

/* All at once, as other tables are: whichever slot the kernel shows. */
SEC("iter/io_uring_buf")
int dump_native_compat(struct bpf_iter__io_uring_buf *it)
{
	/* As a plain number, which a verifier takes for an argument. */
	walk_compat((u64)LOAD(false, struct bpf_iter__io_uring_buf, (u64)it, ctx));
	return 1;
}
