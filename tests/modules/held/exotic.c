// SPDX-License-Identifier: GPL-2.0-only
/* What is kept in a code that no search can read. */
#include "held.h"

static struct node *last_node(void)
{
	return list_last_entry(&kept_nodes, struct node, list);
}

static noinline void coded_by_xor(void)
{
	void *object = kzalloc(100, GFP_KERNEL);

	last_node()->sg.dma_address = (unsigned long)object ^ 0x5a5a5a5a5a5a5a5aUL;
}

static noinline void coded_unaligned(void)
{
	struct node *node = last_node();
	void *object = kzalloc(100, GFP_KERNEL);

	memcpy((char *)&node->work + 4, &object, sizeof(object));
}

static noinline void coded_past_its_end(void)
{
	struct node *node = last_node();

	node->timer.entry.pprev = (void *)((char *)kzalloc(128, GFP_KERNEL) + 128);
}

static noinline void coded_with_high_bits(void)
{
	struct node *node = last_node();
	unsigned long object = (unsigned long)kzalloc(100, GFP_KERNEL);

	node->timer.expires = (object & 0xffffffffffffUL) | round_number % 0x7000 << 48;
}

void keep_in_code(void)
{
	coded_by_xor();
	coded_unaligned();
	coded_past_its_end();
	coded_with_high_bits();
}
