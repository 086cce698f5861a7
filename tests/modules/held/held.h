/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef HELD_H
#define HELD_H

#include <linux/sched.h> /* list_bl.h needs it */
#include <linux/list.h>
#include <linux/list_bl.h>
#include <linux/llist.h>
#include <linux/rbtree.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/timer.h>
#include <linux/workqueue.h>

/* What is kept or lost in all sorts of ways. The links are not at its start. */
struct node {
	u64 pad[8];
	struct list_head list;
	struct rb_node rb;
	struct hlist_node hash;
	struct hlist_bl_node bl;
	struct llist_node ll;
	struct timer_list timer;
	struct delayed_work work;
	void *child;
	struct scatterlist sg;
	u64 word;
};

/* How often the module acted, from 1 on. */
extern unsigned long round_number;
extern struct list_head kept_nodes;
extern struct kmem_cache *held_cache;

static __always_inline struct node *new_node(void)
{
	return kzalloc(sizeof(struct node), GFP_KERNEL);
}

int prepare_keeping(void);
int prepare_losing(void);
void keep_in_all_ways(void);
void lose_in_all_ways(void);
void keep_in_code(void);

/* The compiler must believe that the pointer is used, or it drops the allocation. */
#define forget(pointer) OPTIMIZER_HIDE_VAR(pointer)

#endif
