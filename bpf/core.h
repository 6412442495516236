/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The few kernel types that the programs read, relocated by CO-RE: no
 * vmlinux.h. Only the fields in use are named. What was renamed or moved
 * between kernel versions has a ___flavour here and is chosen in load.h, ring.h
 * and table.h, nowhere else.
 */
#ifndef URING_CORE_H
#define URING_CORE_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

enum bpf_map_type { BPF_MAP_TYPE_ARRAY = 2, BPF_MAP_TYPE_LRU_HASH = 9 };
enum { BPF_F_MMAPABLE = 1 << 10 };

#include <bpf_helpers.h>
#include <bpf_core_read.h>

#define ANON_INODE_FS_MAGIC 0x09041934 /* include/uapi/linux/magic.h */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	__s64 counter;
} atomic_long_t;

typedef struct {
	u32 val;
} kuid_t;

struct cred {
	kuid_t uid;
	kuid_t euid;
};

struct super_block {
	unsigned long s_magic;
	unsigned long s_flags;
	u32 s_dev;
};

struct xarray {
	void *xa_head;
};

struct xa_node {
	void *slots[64];
};

struct address_space {
	struct xarray i_pages;
};

/* With CONFIG_SPARSEMEM; the bitmap with CONFIG_SPARSEMEM_VMEMMAP. */
struct mem_section {
	unsigned long section_mem_map;
};

struct mem_section_usage {
	unsigned long subsection_map[1];
};

struct inode {
	unsigned short i_mode;
	unsigned int i_nlink;
	u32 i_rdev;
	s64 i_size;
	struct super_block *i_sb;
	struct address_space *i_mapping;
	unsigned long i_ino; /* u64 from 7.x on: read by its relocated size */
};

struct qstr {
	const unsigned char *name;
};

struct hlist_bl_node {
	struct hlist_bl_node **pprev;
};

struct dentry {
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
};

struct path {
	struct dentry *dentry;
};

struct file {
	struct inode *f_inode;
	struct path f_path;
	const struct cred *f_cred;
	unsigned int f_flags;
	s64 f_pos;
	void *private_data;
};

/* fs/eventfd.c */
struct eventfd_ctx {
	int id;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct io_ring_ctx;

struct io_uring_task {
	struct file *registered_rings[16];
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
	unsigned long *open_fds;
};

struct files_struct {
	struct fdtable *fdt;
};

struct task_struct {
	unsigned int __state;
	int pid;
	int tgid;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	struct files_struct *files;
	unsigned long nvcsw;
	unsigned long nivcsw;
	struct mm_struct *mm;
	const struct cred *cred;
	char comm[16];
	struct io_uring_task *io_uring;
};

struct vm_area_struct {
	struct file *vm_file;
};

struct mutex {
	atomic_long_t owner;
};

struct rt_mutex_base {
	struct task_struct *owner;
};

/* CONFIG_PREEMPT_RT, include/linux/mutex_types.h. */
struct mutex___rt {
	struct rt_mutex_base rtmutex;
};

struct io_ring_ctx___rt {
	struct mutex___rt uring_lock;
};

struct eventpoll___rt {
	struct mutex___rt mtx;
};

struct user_struct {
	atomic_long_t locked_vm;
	kuid_t uid;
};

struct io_sq_data {
	struct task_struct *thread;
	int sq_cpu;
};

struct io_uring {
	u32 head;
	u32 tail;
};

struct io_rings {
	struct io_uring sq, cq;
};

struct io_ring_ctx {
	unsigned int flags;
	struct io_rings *rings;
	struct mutex uring_lock;
	unsigned int sq_entries;
	unsigned int cq_entries;
	struct io_sq_data *sq_data;
	struct user_struct *user;
};

typedef struct {
	atomic_t refs;
} refcount_t;

/* Only its size is of interest. */
struct page {
	unsigned long flags;
};

struct bio_vec {
	struct page *bv_page;
	unsigned int bv_len;
	unsigned int bv_offset;
};

struct io_mapped_ubuf {
	u64 ubuf; /* ~0 marks the placeholder of an empty slot up to 6.12 */
	unsigned int nr_bvecs;
	struct bio_vec bvec[];
};

/* Up to 6.11 (io_uring/rsrc.h): no length, an end address. */
struct io_mapped_ubuf___v61 {
	u64 ubuf_end;
};

/* What came later, or went: each field is asked for before it is read. */
struct io_mapped_ubuf___later {
	u32 len; /* u64 in 7.x */
	unsigned int folio_shift; /* 6.12 */
	refcount_t refs; /* 6.12 */
	unsigned long acct_pages; /* gone in 7.x */
	bool is_kbuf; /* 6.15, until 7.x */
	u8 dir; /* 6.15 */
};

/* io_uring/rsrc.h of 7.2: is_kbuf became a bit. */
#define IO_REGBUF_F_KBUF 1
struct io_mapped_ubuf___v7 {
	u8 flags;
};

struct io_mapped_ubuf___len64 {
	u64 len;
};

/* Up to 6.12: an array of buffers, and the tags apart (io_uring/rsrc.h). */
struct io_rsrc_data___v61 {
	u64 **tags;
};

struct io_ring_ctx___v61 {
	struct io_mapped_ubuf **user_bufs;
	struct io_rsrc_data___v61 *buf_data;
	struct io_rsrc_data___v61 *file_data;
	unsigned int nr_user_bufs;
	unsigned int nr_user_files;
};

struct io_file_table___v61 {
	void *files; /* of pointers with flags in their low bits */
};

struct io_ring_ctx___files61 {
	struct io_file_table___v61 file_table;
};

struct io_ring_ctx___rcu {
	struct io_rings *rings_rcu;
};

/* From 6.13: one node a slot. */
struct io_rsrc_node___v613 {
	u64 tag;
	unsigned long file_ptr;
	struct io_mapped_ubuf *buf;
};

struct io_rsrc_data___v613 {
	unsigned int nr;
	struct io_rsrc_node___v613 **nodes;
};

struct io_file_table___v613 {
	struct io_rsrc_data___v613 data;
};

struct io_ring_ctx___v613 {
	struct io_rsrc_data___v613 buf_table;
	struct io_file_table___v613 file_table;
};

/* include/linux/rbtree_types.h */
struct rb_node {
	unsigned long __rb_parent_color;
	struct rb_node *rb_right;
	struct rb_node *rb_left;
};

struct rb_root {
	struct rb_node *rb_node;
};

struct rb_root_cached {
	struct rb_root rb_root;
	struct rb_node *rb_leftmost;
};

/* fs/eventpoll.c. Members are found by name: the kernel's are packed. */
struct epoll_filefd { /* struct epoll_key in 7.x */
	struct file *file;
	int fd;
};

struct epoll_event {
	u32 events;
	u64 data;
};

struct epitem {
	struct rb_node rbn;
	struct epoll_filefd ffd;
	struct epoll_event event;
};

struct eventpoll {
	struct mutex mtx;
	struct rb_root_cached rbr;
};

/* include/linux/bpf.h and include/linux/bpf_iter.h */
struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
	u64 seq_num; /* of the object, from 0 */
};

/* Of kernels with the patches in kernel/. */
struct bpf_iter__io_uring_buf {
	struct bpf_iter_meta *meta;
	struct io_ring_ctx *ctx;
	struct io_mapped_ubuf *ubuf;
	u64 index;
};

struct bpf_iter__io_uring_file {
	struct bpf_iter_meta *meta;
	struct io_ring_ctx *ctx;
	struct file *file;
	u64 index;
};

struct bpf_iter__epoll {
	struct bpf_iter_meta *meta;
	struct eventpoll *ep;
	struct epitem *epi;
};

struct bpf_iter__task_file {
	struct task_struct *task;
	u32 fd;
	struct file *file;
};

struct bpf_iter__task {
	struct task_struct *task;
};

struct bpf_iter__task_vma {
	struct task_struct *task;
	struct vm_area_struct *vma;
};

#pragma clang attribute pop

#endif
