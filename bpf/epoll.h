/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which file is an epoll set, and which set that is. */
#ifndef URING_EPOLL_H
#define URING_EPOLL_H

#include "file.h"

/*
 * The set of a file (struct eventpoll), 0 for a file of another kind. Each set has one
 * file for as long as it lives (do_epoll_create(), fs/eventpoll.c), so that either stands
 * for the other. As a plain number: newer verifiers would type what a direct load gives.
 */
static __always_inline u64 set_of(const bool direct, u64 file)
{
	if (!file || !is_anon_file(direct, file, "[eventpoll]"))
		return 0;
	return (u64)LOAD(false, struct file, file, private_data);
}

#endif
