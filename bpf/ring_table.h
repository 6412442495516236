/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The words of verify.h that are the same for each table of a ring. */
#ifndef URING_RING_TABLE_H
#define URING_RING_TABLE_H

#include "ring.h"
#include "table.h"

typedef struct table table_t;
/*
 * Up to 6.12 the tags come last when a table is made: a look at one that was half
 * made, with the lock held, may be followed by passes with the lock free.
 */
#define same_table(a, b) ((a)->nr == (b)->nr && (a)->slots == (b)->slots && (a)->tags == (b)->tags)
#define owner_of lock_owner

/* An array: its size is all there is to know. */
#define rewind(direct, t) ((void)(t))
#define at_end(t) ((void)(t), true)

#endif
