/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where user space asks for a walk, and is answered. */
#ifndef URING_REQUEST_H
#define URING_REQUEST_H

#include "core.h"
#include "record.h"

/* One map each, so that no one has to know where clang puts a variable. */
struct walk_request request SEC(".bss.request");
struct walk_reply reply SEC(".bss.reply");

#endif
