// SPDX-License-Identifier: GPL-2.0-only
/* What must not be reported: everything here is given back, by whatever way. */
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/timer.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>

#include "planted.h"

#define KEPT 17

struct item {
	struct rcu_head rcu;
	char data[120];
};

static void *kept[KEPT];
static void *kept_area, *kept_areas[3];
static int nineteen = 19;
module_param(nineteen, int, 0444);

static noinline void free_at_once(void)
{
	for (int i = 0; i < 1009; i++) {
		void *p = kmalloc(64, GFP_KERNEL);

		OPTIMIZER_HIDE_VAR(p);
		kfree(p);
	}
}

static noinline void free_by_kfree_rcu(void)
{
	for (int i = 0; i < nineteen; i++) {
		struct item *item = kmalloc(sizeof(*item), GFP_KERNEL);

		if (item)
			kfree_rcu(item, rcu);
	}
}

static noinline void free_area_by_kvfree_rcu(void)
{
	struct item *item = vmalloc(3 * PAGE_SIZE);

	if (item)
		kvfree_rcu(item, rcu);
}

static void free_item(struct rcu_head *rcu)
{
	kfree(container_of(rcu, struct item, rcu));
}

static noinline void free_by_call_rcu(void)
{
	for (int i = 0; i < nineteen; i++) {
		struct item *item = kmalloc(sizeof(*item), GFP_KERNEL);

		if (item)
			call_rcu(&item->rcu, free_item);
	}
}

static noinline void grow_and_free(void)
{
	void *p = NULL, *larger;

	for (size_t size = 16; size < 4096; size += 97) {
		larger = krealloc(p, size, GFP_KERNEL);
		if (!larger)
			break;
		p = larger;
	}
	kfree(p);
}

static noinline void keep_for_a_while(void)
{
	for (int i = 0; i < KEPT; i++)
		kept[i] = kmalloc(333, GFP_KERNEL);
	kept_area = vmalloc(7 * PAGE_SIZE);
	for (int i = 0; i < 3; i++)
		kept_areas[i] = kvmalloc(3 << 20, GFP_KERNEL);
}

void be_innocent(void)
{
	free_at_once();
	free_by_kfree_rcu();
	free_area_by_kvfree_rcu();
	free_by_call_rcu();
	grow_and_free();
	keep_for_a_while();
}

void stay_innocent(void)
{
	for (int i = 0; i < KEPT; i++)
		kfree(kept[i]);
	vfree(kept_area);
	for (int i = 0; i < 3; i++)
		kvfree(kept_areas[i]);
	/* free_item() must not run after this text is gone. */
	rcu_barrier();
}
