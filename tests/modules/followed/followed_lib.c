// SPDX-License-Identifier: GPL-2.0-only
/* Leaks for itself, and for another module that calls it. */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/slab.h>
#include "followed.h"

static noinline void leak_one(void)
{
	void *p = kmalloc(200, GFP_KERNEL);

	OPTIMIZER_HIDE_VAR(p);
}

noinline void followed_lib_take(int count)
{
	for (int i = 0; i < count; i++)
		leak_one();
}
EXPORT_SYMBOL_GPL(followed_lib_take);

static void *kept_while_loaded;

static int __init followed_lib_init(void)
{
	/* Frees what it holds: a leak only to somebody who does not wait for the unload. */
	kept_while_loaded = kmalloc(1000, GFP_KERNEL);
	followed_lib_take(5);
	return 0;
}

static void __exit followed_lib_exit(void)
{
	kfree(kept_while_loaded);
}

module_init(followed_lib_init);
module_exit(followed_lib_exit);
MODULE_DESCRIPTION("Leaks 5 objects in each load, and more for others");
MODULE_LICENSE("GPL");
