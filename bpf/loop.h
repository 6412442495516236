/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Loops over a table that the verifier of each kernel accepts: may_goto in the
 * main frame (6.9 on), bpf_loop() before that. Nothing here knows what is
 * done with a slot.
 *
 * Two things that look odd are needed. The counter starts from a 0 that the
 * verifier does not know, or it would follow each round by itself. barrier_var()
 * keeps clang from running a second counter whose bound gets lost.
 */
#ifndef URING_LOOP_H
#define URING_LOOP_H

#include "core.h"

u64 zero; /* never written */

/* False when the kernel says that the loop has run for long enough. */
#define can_loop                                                         \
	({                                                               \
		__label__ l_stop, l_done;                                \
		bool __go = true;                                        \
		asm volatile goto("may_goto %l[l_stop]" : : : : l_stop); \
		goto l_done;                                             \
l_stop:                                                                  \
		__go = false;                                            \
l_done:                                                                  \
		__go;                                                    \
	})

/*
 * may_goto ends after a quarter of a second (6.15 on), which a large table may
 * take; in a program at a tracepoint even after 65,535 rounds (seen on 6.18).
 * Each call of a function that is not static begins anew: a loop for one of those.
 */
#define ROUNDS (1 << 15)

/*
 * for (i = 0; i < nr; i++) body; `i` is nr at the end only if all was done.
 * `max` is a literal by which the verifier knows that `i` has a bound.
 */
#define for_each_slot_direct(i, nr, max)          \
	for (i = zero; i < (nr) && can_loop; i++) \
		if (({                            \
			    barrier_var(i);       \
			    i >= (max);           \
		    }))                           \
			break;                    \
		else

#endif
