// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/timekeeping.h>
#include <linux/workqueue.h>

#include "planted.h"

/* Set at run time, so that loops stay loops and sizes are not constants. */
static int three = 3, five = 5, eleven = 11, thirteen = 13;
module_param(three, int, 0444);
static size_t large_bytes = 20000;
module_param(large_bytes, ulong, 0444);

static struct kmem_cache *cache;

static noinline void leak_kmalloc(void)
{
	for (int i = 0; i < three; i++) {
		void *p = kmalloc(120, GFP_KERNEL); /* LEAK leak_kmalloc */

		OPTIMIZER_HIDE_VAR(p);
	}
}

static noinline void leak_cache(void)
{
	for (int i = 0; i < five; i++) {
		void *p = kmem_cache_alloc(cache, GFP_KERNEL); /* LEAK leak_cache */

		OPTIMIZER_HIDE_VAR(p);
	}
}

/* Above the largest cache, of a size unknown to the compiler: two events for one allocation. */
static noinline void leak_large(void)
{
	for (int i = 0; i < three; i++) {
		void *p = kmalloc(large_bytes, GFP_KERNEL); /* LEAK leak_large */

		OPTIMIZER_HIDE_VAR(p);
	}
}

/* 11 allocated, every third given back: 7 leak. */
static noinline void leak_some(void)
{
	for (int i = 0; i < eleven; i++) {
		void *p = kzalloc(56, GFP_KERNEL); /* LEAK leak_some */

		OPTIMIZER_HIDE_VAR(p);
		if (i % 3 == 0)
			kfree(p);
	}
}

static noinline void leak_string(void)
{
	for (int i = 0; i < thirteen; i++) {
		void *p = kasprintf(GFP_KERNEL, "planted %d of %d", i, thirteen); /* LEAK leak_string */

		OPTIMIZER_HIDE_VAR(p);
	}
}

/* Not in the context of insmod, but in this module's text all the same. */
static noinline void leak_in_work(struct work_struct *work)
{
	for (int i = 0; i < five; i++) {
		void *p = kmalloc(300, GFP_KERNEL); /* LEAK leak_in_work */

		OPTIMIZER_HIDE_VAR(p);
	}
}

static DECLARE_WORK(leaking_work, leak_in_work);

int leak_slab(void)
{
	char name[40];

	/*
	 * Not destroyed: with objects in it, it would take other memory along. A name for each
	 * load, because it stays. The flag keeps it from being merged with another cache.
	 */
	snprintf(name, sizeof(name), "planted_%llu", ktime_get_ns());
	cache = kmem_cache_create(name, 104, 0, SLAB_TYPESAFE_BY_RCU, NULL); /* LEAK leak_slab */
	if (!cache)
		return -ENOMEM;
	leak_kmalloc();
	leak_cache();
	leak_large();
	leak_some();
	leak_string();
	schedule_work(&leaking_work);
	flush_work(&leaking_work);
	return 0;
}
