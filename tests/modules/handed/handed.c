// SPDX-License-Identifier: GPL-2.0-only
/*
 * Three ways to leave memory behind. By the ledger they are alike: each load leaves the same number.
 * tests/vm/test_kmemleak.py holds the truth.
 */
#include <linux/module.h>
#include <linux/slab.h>

#include "holder.h"

static noinline void lose(void)
{
	for (int i = 0; i < 5; i++) {
		void *p = kmalloc(300, GFP_KERNEL);

		OPTIMIZER_HIDE_VAR(p);
	}
}

static noinline void hand_over(void)
{
	for (int i = 0; i < 7; i++) {
		void *p = kmalloc(700, GFP_KERNEL);

		holder_take(p);
	}
}

/* The commonest leak: the pointer is there to the end, and exit does not free what it points to. */
static void *forgotten;

static noinline void forget(void)
{
	WRITE_ONCE(forgotten, kmalloc(1500, GFP_KERNEL)); /* nobody reads it */
}

static int __init handed_init(void)
{
	lose();
	hand_over();
	forget();
	return 0;
}

static void __exit handed_exit(void)
{
}

module_init(handed_init);
module_exit(handed_exit);
MODULE_DESCRIPTION("Loses memory, and hands some to another module");
MODULE_LICENSE("GPL");
