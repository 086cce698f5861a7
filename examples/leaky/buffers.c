// SPDX-License-Identifier: GPL-2.0-only
/* The buffers of the example: what a driver allocates, and what it forgets. */
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#include "leaky.h"

#define KEPT 11
#define FORGOTTEN 3
#define SESSIONS 7
#define RETIRED 13

struct session {
	u64 id;
	char state[100];
};

struct retired {
	struct rcu_head rcu;
	char data[168];
};

static void *kept[KEPT];

static int rings = 2;
module_param(rings, int, 0444);
MODULE_PARM_DESC(rings, "regions of vmalloc to forget in a load");

/* LEAK: 3 x 128 bytes a load. Each new buffer overwrites the pointer to the last. */
static noinline void *forget_buffers(void)
{
	void *buffer = NULL;

	for (int i = 0; i < FORGOTTEN; i++)
		buffer = kmalloc(120, GFP_KERNEL);
	return buffer;
}

/* LEAK: 2 x 12 kB of vmalloc a load. */
static noinline int forget_rings(void)
{
	int made = 0;

	for (int i = 0; i < rings; i++)
		made += vmalloc(10000) != NULL;
	return made;
}

/* LEAK: 7 x 128 bytes less the 2 that are given back: 5 a load. */
static noinline void lose_sessions(void)
{
	struct session *session;

	for (int i = 0; i < SESSIONS; i++) {
		session = kzalloc(sizeof(*session), GFP_KERNEL);
		if (session && i % 3 == 1)
			kfree(session);
	}
}

/* No leak: freed after a grace period, in a batch that has no event of its own. */
static noinline void retire_by_rcu(void)
{
	for (int i = 0; i < RETIRED; i++) {
		struct retired *old = kmalloc(sizeof(*old), GFP_KERNEL);

		if (old)
			kfree_rcu(old, rcu);
	}
}

int buffers_create(void)
{
	for (int i = 0; i < KEPT; i++)
		kept[i] = kmalloc(200, GFP_KERNEL);
	forget_buffers();
	if (forget_rings() != rings)
		return -ENOMEM;
	lose_sessions();
	retire_by_rcu();
	return 0;
}

void buffers_destroy(void)
{
	for (int i = 0; i < KEPT; i++)
		kfree(kept[i]);
}
