/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What an open file is, for any kernel from 6.1 on. */
#ifndef URING_FILE_H
#define URING_FILE_H

#include "load.h"
#include "record.h"

/* include/uapi/linux/magic.h */
#define PID_FS_MAGIC 0x50494446 /* 6.9 */
#define DMA_BUF_MAGIC 0x444d4142
#define SECRETMEM_MAGIC 0x5345434d
#define TMPFS_MAGIC 0x01021994
#define HUGETLBFS_MAGIC 0x958458f6

/* include/uapi/linux/stat.h */
#define S_IFMT 0170000

union anon_name {
	char text[16];
	u64 word[2];
};

/* By name, and by the file system that no one can mount. */
#define is_anon_file(direct, file, literal)                                                   \
	({                                                                                    \
		const union anon_name __want = { .text = literal };                           \
		union anon_name __name = {};                                                  \
		has_anon_name((direct), (file), &__name, sizeof(literal)) &&                  \
			__name.word[0] == __want.word[0] && __name.word[1] == __want.word[1]; \
	})

/* The first bytes of the name of a file in anon_inodefs; false elsewhere. */
static __always_inline bool has_anon_name(const bool direct, u64 file, union anon_name *name,
					  u32 len)
{
	struct file *f = AS(direct, struct file, file);
	struct inode *inode = FIELD(direct, f, f_inode);
	struct super_block *sb = FIELD(direct, inode, i_sb);
	struct dentry *dentry;

	if (FIELD(direct, sb, s_magic) != ANON_INODE_FS_MAGIC)
		return false;
	dentry = FIELD(direct, f, f_path.dentry);
	return !bpf_probe_read_kernel(name->text, len, FIELD(direct, dentry, d_name.name));
}

static __always_inline u64 inode_of(const bool direct, u64 file)
{
	struct file *f = AS(direct, struct file, file);
	struct inode *inode = FIELD(direct, f, f_inode);

	return FIELD(direct, inode, i_ino);
}

/* include/linux/fs.h */
#define SB_KERNMOUNT (1UL << 22)
#define SB_NOUSER (1UL << 31)

/* Bytes of a name that a record has room for (struct file_identity). */
#define NAME_ROOM 12

union inner_name {
	char text[24];
	u64 word[3];
	u32 half[6];
};

#define IS_NAME(name, literal)                                                        \
	({                                                                            \
		const union inner_name __want = { .text = literal };                  \
		(name).word[0] == __want.word[0] && (name).half[2] == __want.half[2]; \
	})

/*
 * Which kind a file of anon_inodefs is: that is in its name. An inode that is shared by
 * all of them has a size of 0 and one link, so that the name may take their place.
 */
static __always_inline void describe_anon(const bool direct, u64 file, struct file_identity *id)
{
	struct file *f = AS(direct, struct file, file);
	struct dentry *dentry = AS(direct, struct dentry, FIELD(direct, f, f_path.dentry));
	union inner_name name = {};

	bpf_probe_read_kernel_str(name.text, NAME_ROOM + 1, FIELD(direct, dentry, d_name.name));
	id->kind = FILE_ANON_INODE;
	if (IS_NAME(name, "[eventfd]")) {
		u64 ctx = (u64)FIELD(direct, f, private_data);

		id->kind = FILE_EVENTFD;
		id->detail = LOAD(direct, struct eventfd_ctx, ctx, id);
		return;
	}
	if (IS_NAME(name, "[eventpoll]"))
		id->kind = FILE_EPOLL;
	if (IS_NAME(name, "[io_uring]"))
		id->kind = FILE_IO_URING;
	if (!id->detail && id->nlink == 1) {
		id->detail = name.word[0];
		id->nlink = name.half[2];
		id->traits |= FILE_NAMED;
	}
}

/* A regular file that never was in a folder. */
static __always_inline void describe_inner(const bool direct, u64 file, u64 magic,
					   struct file_identity *id)
{
	struct file *f = AS(direct, struct file, file);
	struct dentry *dentry = AS(direct, struct dentry, FIELD(direct, f, f_path.dentry));
	union inner_name name = {};

	if (magic == ANON_INODE_FS_MAGIC || magic == PID_FS_MAGIC) {
		/* S_IFREG since 6.16, which fstat(2) hides (anon_inode_getattr) */
		id->mode &= ~S_IFMT;
		id->kind = FILE_ANON_INODE;
	}
	if (magic == ANON_INODE_FS_MAGIC) {
		describe_anon(direct, file, id);
		return;
	}
	if (magic == PID_FS_MAGIC)
		id->traits |= FILE_PIDFD;
	if (magic == DMA_BUF_MAGIC)
		id->traits |= FILE_DMABUF;
	if (magic == SECRETMEM_MAGIC)
		id->traits |= FILE_SECRETMEM;
	if (magic != TMPFS_MAGIC && magic != HUGETLBFS_MAGIC)
		return;
	bpf_probe_read_kernel(name.text, sizeof("memfd:") - 1, FIELD(direct, dentry, d_name.name));
	if (IS_NAME(name, "memfd:"))
		id->traits |= FILE_MEMFD;
}

/*
 * File systems of which stat(2) tells the device that they are on: no getattr() of theirs,
 * in 6.1 to 7.2, sets another one, as those of overlayfs and btrfs do.
 */
static __always_inline int tells_own_device(u64 magic)
{
	switch (magic) {
	case ANON_INODE_FS_MAGIC:
	case PID_FS_MAGIC:
	case DMA_BUF_MAGIC:
	case SECRETMEM_MAGIC:
	case TMPFS_MAGIC:
	case HUGETLBFS_MAGIC:
	case 0x858458f6: /* ramfs, also as devtmpfs */
	case 0x50495045: /* pipefs */
	case 0x534f434b: /* sockfs */
	case 0x6e736673: /* nsfs */
	case 0x00009fa0: /* proc */
	case 0x62656572: /* sysfs */
	case 0x63677270: /* cgroup2 */
	case 0x00001cd1: /* devpts */
	case 0x0000ef53: /* ext2, ext3, ext4 */
	case 0x58465342: /* xfs */
	case 0xf2f52010: /* f2fs */
		return FILE_OWN_DEVICE;
	}
	return 0;
}

/* d_unlinked(), include/linux/dcache.h: what d_path() calls "(deleted)". */
static __always_inline bool is_unlinked(const bool direct, u64 dentry)
{
	return !number_at(direct, dentry + bpf_core_field_offset(struct dentry, d_hash.pprev), 0) &&
	       number_at(direct, dentry + bpf_core_field_offset(struct dentry, d_parent), 0) !=
		       dentry;
}

/* By the bits of S_IFMT, as a table: the verifier would follow each branch. */
static const u8 kinds[16] = {
	FILE_OTHER,	   FILE_PIPE,  FILE_CHAR_DEVICE, FILE_OTHER, FILE_DIRECTORY, FILE_OTHER,
	FILE_BLOCK_DEVICE, FILE_OTHER, FILE_REGULAR,	 FILE_OTHER, FILE_OTHER,     FILE_OTHER,
	FILE_SOCKET,	   FILE_OTHER, FILE_OTHER,	 FILE_OTHER,
};

static __always_inline void describe_file(const bool direct, u64 file, struct file_identity *id)
{
	struct file *f = AS(direct, struct file, file);
	struct inode *inode = FIELD(direct, f, f_inode);
	struct super_block *sb = FIELD(direct, inode, i_sb);
	u64 magic = FIELD(direct, sb, s_magic), flags = FIELD(direct, sb, s_flags);

	id->file = file;
	id->inode = FIELD(direct, inode, i_ino);
	id->pos = FIELD(direct, f, f_pos);
	id->detail = FIELD(direct, inode, i_size);
	id->nlink = FIELD(direct, inode, i_nlink);
	id->dev = FIELD(direct, sb, s_dev);
	id->flags = FIELD(direct, f, f_flags);
	id->mode = FIELD(direct, inode, i_mode);
	id->kind = kinds[id->mode >> 12];
	id->traits = tells_own_device(magic);
	if (id->kind == FILE_CHAR_DEVICE || id->kind == FILE_BLOCK_DEVICE)
		id->detail = FIELD(direct, inode, i_rdev);
	/* Those of huge pages, as memfd_create(2) makes them, could be mounted. */
	if (flags & SB_NOUSER || (flags & SB_KERNMOUNT && magic == HUGETLBFS_MAGIC)) {
		id->traits |= FILE_INTERNAL;
		if (id->kind != FILE_PIPE && id->kind != FILE_SOCKET)
			describe_inner(direct, file, magic, id);
	} else if (!id->nlink || is_unlinked(direct, (u64)FIELD(direct, f, f_path.dentry))) {
		id->traits |= FILE_DELETED;
	}
}

/* Not static: the verifier looks at them by themselves, and once. */
__noinline __attribute__((unused)) int describe_file_direct(u64 file, struct file_identity *id)
{
	if (id)
		describe_file(true, file, id);
	return 0;
}

__noinline __attribute__((unused)) int describe_file_compat(u64 file, struct file_identity *id)
{
	if (id)
		describe_file(false, file, id);
	return 0;
}

/* What an open file is: `id` is all zeroes before. */
static __always_inline void load_file(const bool direct, u64 file, struct file_identity *id)
{
	direct ? describe_file_direct(file, id) : describe_file_compat(file, id);
}

#endif
