// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Where the kernel keeps struct page. User space knows the page frame number
 * of a page in a file of its own, and learns here where its struct page is.
 */
#include "file.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct frame_request request SEC(".bss.request");
struct frame_reply reply SEC(".bss.reply");

#define TMPFS_MAGIC 0x01021994 /* include/uapi/linux/magic.h */

/* The low bits of an entry, include/linux/xarray.h: 0 for a pointer. */
#define XA_TAG_MASK 3
#define XA_NODE 2

/*
 * True if struct page is one array. Not so with CONFIG_SPARSEMEM alone, where
 * each section of memory has an array of its own.
 */
static __always_inline bool is_linear(void)
{
	return !bpf_core_type_exists(struct mem_section) ||
	       bpf_core_field_exists(struct mem_section_usage, subsection_map);
}

SEC("iter/task_file")
int look_at_page(struct bpf_iter__task_file *it)
{
	struct file *file = it->file;
	struct inode *inode;
	u64 entry;

	if (!file || it->fd != (u32)request.fd)
		return 0;
	inode = BPF_CORE_READ(file, f_inode);
	if (inode_of(false, (u64)file) != request.inode ||
	    BPF_CORE_READ(inode, i_sb, s_magic) != TMPFS_MAGIC)
		return 0;
	entry = (u64)BPF_CORE_READ(inode, i_mapping, i_pages.xa_head);
	/* The first page may be part of a huge one, which lies deeper. */
	for (u32 i = 0; i < 3 && (entry & XA_TAG_MASK) == XA_NODE; i++)
		entry = pointer_at(
			false, entry - XA_NODE + bpf_core_field_offset(struct xa_node, slots), 0);
	reply.page_bytes = bpf_core_type_size(struct page);
	reply.linear = is_linear();
	/* Not swapped out. The first struct page of a folio is its address. */
	if (!(entry & XA_TAG_MASK))
		reply.page = entry;
	return 0;
}
