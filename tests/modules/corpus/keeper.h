/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef KEEPER_H
#define KEEPER_H

#include <linux/types.h>

/* Memory from another module than the one that is watched, for the caller to free. */
void *keeper_allocate(size_t size);

/* Memory that the caller gives away: it is freed when this module is unloaded. */
void keeper_keep(void *memory);
bool keeper_full(unsigned int limit);

#endif
