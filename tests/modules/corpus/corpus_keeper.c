// SPDX-License-Identifier: GPL-2.0-only
/* Stays loaded beside the corpus: allocates for it, and holds what it is given. */
#include <linux/module.h>
#include <linux/slab.h>

#include "keeper.h"

static void *kept[16];
static unsigned int number;

noinline void *keeper_allocate(size_t size)
{
	void *p = kmalloc(size, GFP_KERNEL);

	OPTIMIZER_HIDE_VAR(p);
	return p;
}
EXPORT_SYMBOL_GPL(keeper_allocate);

void keeper_keep(void *memory)
{
	if (number < ARRAY_SIZE(kept))
		kept[number++] = memory;
}
EXPORT_SYMBOL_GPL(keeper_keep);

bool keeper_full(unsigned int limit)
{
	return number >= limit || number >= ARRAY_SIZE(kept);
}
EXPORT_SYMBOL_GPL(keeper_full);

static int __init keeper_init(void)
{
	return 0;
}

static void __exit keeper_exit(void)
{
	while (number)
		kfree(kept[--number]);
}

module_init(keeper_init);
module_exit(keeper_exit);
MODULE_DESCRIPTION("Allocates for another module, and keeps what that gives away");
MODULE_LICENSE("GPL");
