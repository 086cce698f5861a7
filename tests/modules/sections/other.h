/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef SECTIONS_OTHER_H
#define SECTIONS_OTHER_H

#include <linux/slab.h>

void *other_text(size_t size);
void *other_cold(size_t size);

/* Inlined from the module's own header: a frame of it is the module's code. */
static __always_inline void *own_header(size_t size)
{
	return kzalloc(size, GFP_KERNEL);
}

#endif
