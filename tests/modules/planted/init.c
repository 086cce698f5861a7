// SPDX-License-Identifier: GPL-2.0-only
/*
 * Planted leaks in prime numbers. tests/vm/test_planted.py holds the truth: a change here is a
 * change there, line numbers included (it finds them by the LEAK comments).
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "planted.h"

static int __init planted_init(void)
{
	void *kept;

	for (int i = 0; i < 7; i++) {
		kept = kmalloc(200, GFP_KERNEL); /* LEAK planted_init */
		OPTIMIZER_HIDE_VAR(kept);
	}
	leak_areas();
	be_innocent();
	return leak_slab();
}

static void __exit planted_exit(void)
{
	stay_innocent();
}

module_init(planted_init);
module_exit(planted_exit);
MODULE_DESCRIPTION("Leaks in known numbers");
MODULE_LICENSE("GPL");
