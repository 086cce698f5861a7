// SPDX-License-Identifier: GPL-2.0-only
/* What something points to: the ordinary ways of the kernel. */
#include <linux/idr.h>
#include <linux/kthread.h>
#include <linux/maple_tree.h>
#include <linux/mm.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <linux/skbuff.h>
#include <linux/string.h>
#include <linux/vmalloc.h>
#include <linux/xarray.h>

#include "held.h"

#define SLOTS 512

LIST_HEAD(kept_nodes);
static LIST_HEAD(kept_pages);
static struct rb_root kept_tree = RB_ROOT;
static DEFINE_XARRAY(kept_xarray);
static DEFINE_IDR(kept_idr);
static DEFINE_MTREE(kept_maple);
static struct hlist_bl_head kept_bl;
static LLIST_HEAD(kept_ll);
static struct sk_buff_head kept_skbs;
static struct hlist_head *kept_table; /* vmalloc */
static void **page_slots; /* a page */
static void **large_slots; /* kmalloc of pages of its own */
static void *static_slots[SLOTS];
static void __percpu **percpu_slots;
static struct node *chain;

static noinline void keep_in_list(void)
{
	struct node *node = new_node();

	list_add_tail(&node->list, &kept_nodes);
}

static noinline void keep_child(void)
{
	list_last_entry(&kept_nodes, struct node, list)->child = kmalloc(120, GFP_KERNEL);
}

static noinline void keep_in_tree(void)
{
	struct rb_node **link = &kept_tree.rb_node, *parent = NULL;
	struct node *node = new_node();

	while (*link) {
		parent = *link;
		link = round_number & 1 ? &parent->rb_right : &parent->rb_left;
	}
	rb_link_node(&node->rb, parent, link);
	rb_insert_color(&node->rb, &kept_tree);
}

static noinline void keep_in_xarray(void)
{
	void *object = kzalloc(100, GFP_KERNEL);

	xa_store(&kept_xarray, round_number * 977, object, GFP_KERNEL);
}

static noinline void keep_in_idr(void)
{
	void *object = kzalloc(100, GFP_KERNEL);

	idr_alloc(&kept_idr, object, 0, 0, GFP_KERNEL);
}

static noinline void keep_in_maple(void)
{
	void *object = kzalloc(100, GFP_KERNEL);

	mtree_store_range(&kept_maple, round_number * 100, round_number * 100 + 9, object,
			  GFP_KERNEL);
}

static noinline void keep_in_hash_table(void)
{
	struct node *node = new_node();

	hlist_add_head(&node->hash, &kept_table[round_number % SLOTS]);
}

static noinline void keep_in_locked_list(void)
{
	struct node *node = new_node();

	hlist_bl_lock(&kept_bl);
	hlist_bl_add_head(&node->bl, &kept_bl);
	hlist_bl_unlock(&kept_bl);
}

static noinline void keep_in_llist(void)
{
	struct node *node = new_node();

	llist_add(&node->ll, &kept_ll);
}

static noinline void keep_in_page(void)
{
	page_slots[round_number % SLOTS] = kzalloc(100, GFP_KERNEL);
}

static noinline void keep_in_large_kmalloc(void)
{
	large_slots[round_number % SLOTS] = kzalloc(100, GFP_KERNEL);
}

static noinline void keep_in_module_data(void)
{
	static_slots[round_number % SLOTS] = kmalloc(2000, GFP_KERNEL);
}

static noinline void keep_in_page_private(void)
{
	struct page *page = alloc_page(GFP_KERNEL);

	set_page_private(page, (unsigned long)kzalloc(100, GFP_KERNEL));
	list_add(&page->lru, &kept_pages);
}

static noinline void keep_in_percpu(void)
{
	((void **)per_cpu_ptr(percpu_slots, 0))[round_number % SLOTS] = kzalloc(100, GFP_KERNEL);
}

static noinline void keep_with_low_bits(void)
{
	struct node *node = list_last_entry(&kept_nodes, struct node, list);

	node->word = (unsigned long)kzalloc(100, GFP_KERNEL) | 3;
}

static noinline void keep_by_inner_pointer(void)
{
	struct node *node = list_last_entry(&kept_nodes, struct node, list);

	node->pad[3] = (unsigned long)kmalloc(400, GFP_KERNEL) + 96;
}

static noinline void keep_in_scatterlist(void)
{
	struct node *node = list_last_entry(&kept_nodes, struct node, list);

	sg_init_one(&node->sg, kzalloc(100, GFP_KERNEL), 100);
}

static noinline void keep_by_physical_address(void)
{
	struct node *node = list_last_entry(&kept_nodes, struct node, list);

	node->pad[4] = virt_to_phys(kzalloc(100, GFP_KERNEL));
}

static noinline void keep_in_chain(void)
{
	struct node *node = new_node();

	node->child = chain;
	chain = node;
}

static void tick(struct timer_list *timer)
{
}

static noinline void keep_in_timer(void)
{
	struct node *node = new_node();

	timer_setup(&node->timer, tick, 0);
	mod_timer(&node->timer, jiffies + 3600 * HZ);
}

static void work(struct work_struct *work)
{
}

static noinline void keep_in_delayed_work(void)
{
	struct node *node = new_node();

	INIT_DELAYED_WORK(&node->work, work);
	schedule_delayed_work(&node->work, 3600 * HZ);
}

/* In a function of its own, so that its caller has the pointer in a register that is saved. */
static noinline void *keep_on_stack(void)
{
	void *object = kzalloc(100, GFP_KERNEL);

	forget(object);
	return object;
}

static int sleep_with_it(void *unused)
{
	char *volatile held = keep_on_stack();

	while (!kthread_should_stop())
		schedule_timeout_interruptible(3600 * HZ);
	return held[0];
}

static noinline void keep_area(void)
{
	list_last_entry(&kept_nodes, struct node, list)->pad[1] = (unsigned long)vmalloc(10000);
}

static noinline void keep_large(void)
{
	list_last_entry(&kept_nodes, struct node, list)->pad[2] =
		(unsigned long)kmalloc(65536, GFP_KERNEL);
}

static noinline void keep_pages_by_struct(void)
{
	list_last_entry(&kept_nodes, struct node, list)->pad[5] =
		(unsigned long)alloc_pages(GFP_KERNEL, 1);
}

static noinline void keep_pages_by_address(void)
{
	list_last_entry(&kept_nodes, struct node, list)->pad[6] = __get_free_page(GFP_KERNEL);
}

static noinline void keep_pages_by_mapping(void)
{
	struct page *page = alloc_page(GFP_KERNEL);

	list_last_entry(&kept_nodes, struct node, list)->pad[7] =
		(unsigned long)vmap(&page, 1, VM_MAP, PAGE_KERNEL);
}

static noinline void keep_in_own_cache(void)
{
	list_last_entry(&kept_nodes, struct node, list)->pad[0] =
		(unsigned long)kmem_cache_zalloc(held_cache, GFP_KERNEL);
}

static noinline void keep_string(void)
{
	static_slots[(round_number + 100) % SLOTS] = kstrdup("kept for long", GFP_KERNEL);
}

static noinline void keep_buffer(void)
{
	struct sk_buff *skb = alloc_skb(500, GFP_KERNEL);

	if (skb)
		skb_queue_tail(&kept_skbs, skb);
}

void keep_in_all_ways(void)
{
	keep_in_list();
	keep_child();
	keep_in_tree();
	keep_in_xarray();
	keep_in_idr();
	keep_in_maple();
	keep_in_hash_table();
	keep_in_locked_list();
	keep_in_llist();
	keep_in_page();
	keep_in_large_kmalloc();
	keep_in_module_data();
	keep_in_page_private();
	keep_in_percpu();
	keep_with_low_bits();
	keep_by_inner_pointer();
	keep_in_scatterlist();
	keep_by_physical_address();
	keep_in_chain();
	keep_in_timer();
	keep_in_delayed_work();
	kthread_run(sleep_with_it, NULL, "held_sleeper");
	keep_area();
	keep_large();
	keep_pages_by_struct();
	keep_pages_by_address();
	keep_pages_by_mapping();
	keep_in_own_cache();
	keep_string();
	keep_buffer();
}

int prepare_keeping(void)
{
	skb_queue_head_init(&kept_skbs);
	kept_table = vzalloc(SLOTS * sizeof(*kept_table));
	page_slots = (void **)get_zeroed_page(GFP_KERNEL);
	large_slots = kzalloc(32768, GFP_KERNEL);
	percpu_slots = __alloc_percpu(SLOTS * sizeof(void *), sizeof(void *));
	return kept_table && page_slots && large_slots && percpu_slots ? 0 : -ENOMEM;
}
