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
	int err;

	for (int i = 0; i < 7; i++) {
		kept = kmalloc(200, GFP_KERNEL); /* LEAK planted_init */
		OPTIMIZER_HIDE_VAR(kept);
	}
	err = leak_slab();
	leak_areas();
	be_innocent();
	/* Not as "return leak_slab()": a tail call would leave no frame of this function. */
	return err;
}

static void __exit planted_exit(void)
{
	stay_innocent();
}

module_init(planted_init);
module_exit(planted_exit);
MODULE_DESCRIPTION("Leaks in known numbers");
MODULE_LICENSE("GPL");
