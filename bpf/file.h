/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What an open file is, for any kernel from 6.1 on. */
#ifndef URING_FILE_H
#define URING_FILE_H

#include "load.h"
#include "record.h"

#define PID_FS_MAGIC 0x50494446 /* include/uapi/linux/magic.h, 6.9 */

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

/* Files without a file system of their own: what they are is in their name. */
static __always_inline int anon_kind(const bool direct, u64 file)
{
	if (is_anon_file(direct, file, "[eventfd]"))
		return FILE_EVENTFD;
	if (is_anon_file(direct, file, "[eventpoll]"))
		return FILE_EPOLL;
	if (is_anon_file(direct, file, "[io_uring]"))
		return FILE_IO_URING;
	return FILE_ANON_INODE;
}

/* Not static: the verifier looks at them by themselves, and once. */
__noinline __attribute__((unused)) int anon_kind_direct(u64 file)
{
	return anon_kind(true, file);
}

__noinline __attribute__((unused)) int anon_kind_compat(u64 file)
{
	return anon_kind(false, file);
}

/* By the bits of S_IFMT, as a table: the verifier would follow each branch. */
static const u8 kinds[16] = {
	FILE_OTHER,	   FILE_PIPE,  FILE_CHAR_DEVICE, FILE_OTHER, FILE_DIRECTORY, FILE_OTHER,
	FILE_BLOCK_DEVICE, FILE_OTHER, FILE_REGULAR,	 FILE_OTHER, FILE_OTHER,     FILE_OTHER,
	FILE_SOCKET,	   FILE_OTHER, FILE_OTHER,	 FILE_OTHER,
};

static __always_inline void load_file(const bool direct, u64 file, struct file_identity *id)
{
	struct file *f = AS(direct, struct file, file);
	struct inode *inode = FIELD(direct, f, f_inode);
	struct super_block *sb = FIELD(direct, inode, i_sb);
	u64 magic = FIELD(direct, sb, s_magic);
	u32 dev = FIELD(direct, sb, s_dev);

	id->file = file;
	id->inode = FIELD(direct, inode, i_ino);
	id->pos = FIELD(direct, f, f_pos);
	id->dev_major = dev >> 20; /* MINORBITS, include/linux/kdev_t.h */
	id->dev_minor = dev & ((1 << 20) - 1);
	id->flags = FIELD(direct, f, f_flags);
	id->mode = FIELD(direct, inode, i_mode);
	id->kind = kinds[id->mode >> 12];
	if (magic == ANON_INODE_FS_MAGIC || magic == PID_FS_MAGIC) {
		id->kind = direct ? anon_kind_direct(file) : anon_kind_compat(file);
		/* S_IFREG since 6.16, which fstat(2) hides (anon_inode_getattr) */
		id->mode &= ~S_IFMT;
	}
	id->pad = 0;
}

#endif
