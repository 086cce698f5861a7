// SPDX-License-Identifier: GPL-2.0-only
/* What nothing points to any more. */
#include <linux/idr.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/string.h>
#include <linux/vmalloc.h>
#include <linux/xarray.h>

#include "held.h"

static LIST_HEAD(passing);
static struct rb_root passing_tree = RB_ROOT;
static DEFINE_XARRAY(passing_xarray);
static DEFINE_IDR(passing_idr);
static struct hlist_head *passing_table;
static void *overwritten;
static struct node *lost_one;

static noinline void lose_small(void)
{
	void *object = kmalloc(24, GFP_KERNEL);

	forget(object);
}

static noinline void lose_middling(void)
{
	void *object = kmalloc(120, GFP_KERNEL);

	forget(object);
}

static noinline void lose_1k(void)
{
	void *object = kmalloc(1024, GFP_KERNEL);

	forget(object);
}

static noinline void lose_4k(void)
{
	void *object = kmalloc(4096, GFP_KERNEL);

	forget(object);
}

static noinline void lose_64k(void)
{
	void *object = kmalloc(65536, GFP_KERNEL);

	forget(object);
}

static noinline void lose_area(void)
{
	void *object = vmalloc(10000);

	forget(object);
}

static noinline void lose_kvmalloc(void)
{
	void *object = kvmalloc(5 << 20, GFP_KERNEL);

	forget(object);
}

static noinline void lose_pages(void)
{
	struct page *page = alloc_pages(GFP_KERNEL, 1);

	forget(page);
}

static noinline void lose_page(void)
{
	unsigned long page = __get_free_page(GFP_KERNEL);

	forget(page);
}

static noinline void lose_of_own_cache(void)
{
	void *object = kmem_cache_zalloc(held_cache, GFP_KERNEL);

	forget(object);
}

static noinline void lose_string(void)
{
	char *string = kstrdup("lost for long, for good", GFP_KERNEL);

	forget(string);
}

static noinline void lose_copy(void)
{
	void *copy = kmemdup(&passing, sizeof(passing), GFP_KERNEL);

	forget(copy);
}

static noinline void lose_grown(void)
{
	void *object = kmalloc(50, GFP_KERNEL);

	object = krealloc(object, 700, GFP_KERNEL);
	forget(object);
}

static noinline void lose_in_list_of_itself(void)
{
	struct node *node = new_node();

	INIT_LIST_HEAD(&node->list);
}

static noinline void lose_from_list(void)
{
	struct node *node = new_node();

	list_add_tail(&node->list, &passing);
	list_del(&node->list);
}

static noinline void lose_from_middle_of_list(void)
{
	struct node *node = new_node();

	list_add_tail(&node->list, &kept_nodes);
	list_del(&node->list);
}

static noinline void lose_from_tree(void)
{
	struct node *node = new_node();

	rb_link_node(&node->rb, NULL, &passing_tree.rb_node);
	rb_insert_color(&node->rb, &passing_tree);
	rb_erase(&node->rb, &passing_tree);
}

static noinline void lose_from_xarray(void)
{
	void *object = kzalloc(100, GFP_KERNEL);

	xa_store(&passing_xarray, round_number, object, GFP_KERNEL);
	xa_erase(&passing_xarray, round_number);
}

static noinline void lose_from_idr(void)
{
	void *object = kzalloc(100, GFP_KERNEL);

	idr_remove(&passing_idr, idr_alloc(&passing_idr, object, 0, 0, GFP_KERNEL));
}

static noinline void lose_from_hash_table(void)
{
	struct node *node = new_node();

	hlist_add_head(&node->hash, &passing_table[round_number % 64]);
	hlist_del(&node->hash);
}

static void tick(struct timer_list *timer)
{
}

static noinline void lose_from_timer(void)
{
	struct node *node = new_node();

	timer_setup(&node->timer, tick, 0);
	mod_timer(&node->timer, jiffies + 3600 * HZ);
	mod_timer(&node->timer, jiffies + 7200 * HZ);
	del_timer_sync(&node->timer);
}

static void work(struct work_struct *work)
{
}

static noinline void lose_from_work(void)
{
	struct node *node = new_node();

	INIT_DELAYED_WORK(&node->work, work);
	schedule_delayed_work(&node->work, 3600 * HZ);
	cancel_delayed_work_sync(&node->work);
}

static noinline void lose_overwritten(void)
{
	overwritten = kmalloc(300, GFP_KERNEL);
	forget(overwritten);
	overwritten = NULL;
}

static noinline void lose_one_of_ring(void)
{
	lost_one = new_node();
}

static noinline void lose_other_of_ring(void)
{
	struct node *node = new_node();

	node->child = lost_one;
	lost_one->child = node;
	lost_one = NULL;
}

static noinline void lose_parent(void)
{
	lost_one = new_node();
}

static noinline void lose_child(void)
{
	lost_one->child = kmalloc(88, GFP_KERNEL);
	lost_one = NULL;
}

static noinline void lose_area_with_child(void)
{
	lost_one = vzalloc(9000);
}

static noinline void lose_child_of_area(void)
{
	lost_one->child = kmalloc(77, GFP_KERNEL);
	lost_one = NULL;
}

/* What had the pointer is free now: an object, a page and an area. */
static noinline void lose_in_what_was_freed(void)
{
	void *object = kmalloc(120, GFP_KERNEL);
	void **holder = kmalloc(512, GFP_KERNEL);
	void **page = (void **)__get_free_page(GFP_KERNEL);
	void **area = vmalloc(8192);

	for (int i = 2; i < 60; i += 3)
		holder[i] = page[i] = area[i] = object;
	kfree(holder);
	free_page((unsigned long)page);
	vfree(area);
}

static noinline void lose_deep_in_stack(void)
{
	void *volatile object = kmalloc(120, GFP_KERNEL);

	forget(object);
}

static noinline void go_down(int depth)
{
	void *volatile here[24];

	for (int i = 0; i < 24; i++)
		here[i] = NULL;
	if (!depth)
		lose_deep_in_stack();
	else
		go_down(depth - 1);
	here[0] = here[1];
}

static noinline void lose_with_thread(void)
{
	void *volatile object = kmalloc(180, GFP_KERNEL);

	forget(object);
}

static int end_at_once(void *unused)
{
	lose_with_thread();
	return 0;
}

void lose_in_all_ways(void)
{
	struct task_struct *task;

	lose_small();
	lose_middling();
	lose_1k();
	lose_4k();
	lose_64k();
	lose_area();
	lose_kvmalloc();
	lose_pages();
	lose_page();
	lose_of_own_cache();
	lose_string();
	lose_copy();
	lose_grown();
	lose_in_list_of_itself();
	lose_from_list();
	lose_from_middle_of_list();
	lose_from_tree();
	lose_from_xarray();
	lose_from_idr();
	lose_from_hash_table();
	lose_from_timer();
	lose_from_work();
	lose_overwritten();
	lose_one_of_ring();
	lose_other_of_ring();
	lose_parent();
	lose_child();
	lose_area_with_child();
	lose_child_of_area();
	lose_in_what_was_freed();
	go_down(12);
	task = kthread_run(end_at_once, NULL, "held_ended");
	forget(task);
}

int prepare_losing(void)
{
	passing_table = kcalloc(64, sizeof(*passing_table), GFP_KERNEL);
	return passing_table ? 0 : -ENOMEM;
}
