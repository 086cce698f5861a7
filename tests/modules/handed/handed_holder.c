// SPDX-License-Identifier: GPL-2.0-only
/* Stays loaded, and has pointers to what it is given: that is reachable, whoever allocated it. */
#include <linux/module.h>
#include <linux/slab.h>

#include "holder.h"

static void *taken[64];
static unsigned int number;

void holder_take(void *memory)
{
	if (number < ARRAY_SIZE(taken))
		taken[number++] = memory;
}
EXPORT_SYMBOL_GPL(holder_take);

static int __init holder_init(void)
{
	return 0;
}

static void __exit holder_exit(void)
{
	while (number)
		kfree(taken[--number]);
}

module_init(holder_init);
module_exit(holder_exit);
MODULE_DESCRIPTION("Holds pointers to another module's memory");
MODULE_LICENSE("GPL");
