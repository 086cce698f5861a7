// SPDX-License-Identifier: GPL-2.0-only
/*
 * leaky: a module that leaks on purpose, to see kleak at work. Each load leaks
 *
 *	3 objects of kmalloc in forget_buffers(),
 *	5 of the 7 objects of kmalloc in lose_sessions(),
 *	2 regions of vmalloc in forget_rings(), and
 *	1 string in leaky_init(), which is gone from memory when it is reported,
 *
 * and frees all else: at once, at unload, or by RCU.
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "leaky.h"

static char *label = "nobody";
module_param(label, charp, 0444);
MODULE_PARM_DESC(label, "name to copy, and to lose");

static int __init leaky_init(void)
{
	/* LEAK: a copy that nobody keeps. */
	if (!kstrdup(label, GFP_KERNEL))
		return -ENOMEM;
	return buffers_create();
}

static void __exit leaky_exit(void)
{
	buffers_destroy();
}

module_init(leaky_init);
module_exit(leaky_exit);
MODULE_DESCRIPTION("Leaks on purpose");
MODULE_LICENSE("GPL");
