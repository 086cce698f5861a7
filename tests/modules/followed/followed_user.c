// SPDX-License-Identifier: GPL-2.0-only
/* Leaks by itself, and through another module. */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/slab.h>
#include "followed.h"

static noinline void leak_own(void)
{
	for (int i = 0; i < 7; i++) {
		void *p = kmalloc(60, GFP_KERNEL);

		OPTIMIZER_HIDE_VAR(p);
	}
}

static noinline void leak_through_lib(void)
{
	followed_lib_take(3);
	barrier();
}

static int __init followed_user_init(void)
{
	leak_own();
	leak_through_lib();
	return 0;
}

static void __exit followed_user_exit(void)
{
}

module_init(followed_user_init);
module_exit(followed_user_exit);
MODULE_DESCRIPTION("Leaks 7 objects in each load, and 3 by way of followed_lib");
MODULE_LICENSE("GPL");
