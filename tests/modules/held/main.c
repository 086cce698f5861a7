// SPDX-License-Identifier: GPL-2.0-only
/*
 * Stays loaded, and each time its parameter "act" is written keeps one object in each way of
 * keeps.c and exotic.c, and loses one in each way of loses.c. A function is a site: its name
 * begins with keep_, lose_ or coded_, which is the truth that tests/vm/test_what_is_held.py reads.
 */
#include <linux/init.h>
#include <linux/module.h>

#include "held.h"

unsigned long round_number;
struct kmem_cache *held_cache;

static int act(const char *value, const struct kernel_param *parameter)
{
	unsigned int times;
	int err = kstrtouint(value, 10, &times);

	if (err)
		return err;
	while (times--) {
		round_number++;
		keep_in_all_ways();
		keep_in_code();
		lose_in_all_ways();
	}
	return 0;
}

static const struct kernel_param_ops act_ops = { .set = act };
module_param_cb(act, &act_ops, NULL, 0200);

static int __init held_init(void)
{
	int err;

	held_cache = kmem_cache_create("held_cache", 152, 0, SLAB_HWCACHE_ALIGN, NULL);
	if (!held_cache)
		return -ENOMEM;
	err = prepare_keeping();
	return err ? err : prepare_losing();
}

module_init(held_init);
MODULE_DESCRIPTION("Keeps and loses, and stays");
MODULE_LICENSE("GPL");
