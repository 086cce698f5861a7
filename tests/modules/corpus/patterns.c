// SPDX-License-Identifier: GPL-2.0-only
/* The ways in which a leak hides. */
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/rbtree.h>

#include "keeper.h"
#include "corpus.h"

/* The error path forgets what was allocated first. */
static noinline int leak_on_error(int number)
{
	void *first = kmalloc(100, GFP_KERNEL), *second = kmalloc(100, GFP_KERNEL);

	forget(first);
	kfree(second);
	if (number % 4 == 3)
		return -EIO;
	kfree(first);
	return 0;
}

static int start_error_path(void)
{
	for (int i = 0; i < seven * 4; i++)
		leak_on_error(i);
	return 0;
}

static noinline int leak_in_failing_init(void)
{
	void *p = kmalloc(100, GFP_KERNEL);

	forget(p);
	return -EIO;
}

/* One of 10007 stays. */
static noinline int leak_one_of_many(void)
{
	for (int i = 0; i < 10007; i++) {
		void *p = kmalloc(80, GFP_KERNEL);

		forget(p);
		if (i != 5003)
			kfree(p);
	}
	return 0;
}

struct counted {
	struct kref references;
	char data[180];
};

static void release_counted(struct kref *references)
{
	kfree(container_of(references, struct counted, references));
}

static noinline int leak_reference(void)
{
	for (int i = 0; i < three; i++) {
		struct counted *counted = kzalloc(sizeof(*counted), GFP_KERNEL);

		if (!counted)
			return -ENOMEM;
		kref_init(&counted->references);
		kref_get(&counted->references);
		kref_put(&counted->references, release_counted);
	}
	return 0;
}

struct member {
	struct list_head list;
	struct rb_node node;
	int value;
};

static LIST_HEAD(members);
static struct rb_root tree = RB_ROOT;

static noinline void leak_in_list(void)
{
	struct member *member = kzalloc(sizeof(*member), GFP_KERNEL);

	if (member)
		list_add(&member->list, &members);
}

static int start_list(void)
{
	for (int i = 0; i < seven * 2; i++)
		leak_in_list();
	return 0;
}

/* Frees every other one. */
static void stop_list(void)
{
	struct member *member, *next;
	int number = 0;

	list_for_each_entry_safe(member, next, &members, list)
	{
		if (number++ % 2)
			kfree(member);
	}
}

static noinline void leak_in_tree(int value)
{
	struct rb_node **link = &tree.rb_node, *parent = NULL;
	struct member *member = kzalloc(sizeof(*member), GFP_KERNEL);

	if (!member)
		return;
	member->value = value;
	while (*link) {
		parent = *link;
		link = value < rb_entry(parent, struct member, node)->value ? &parent->rb_left
									    : &parent->rb_right;
	}
	rb_link_node(&member->node, parent, link);
	rb_insert_color(&member->node, &tree);
}

static int start_tree(void)
{
	for (int i = 0; i < 15; i++)
		leak_in_tree(i * 7 % 15);
	return 0;
}

/* Frees the smaller values only: 5 of 15 stay. */
static void stop_tree(void)
{
	struct rb_node *node;

	while ((node = rb_first(&tree))) {
		if (rb_entry(node, struct member, node)->value >= 10)
			break;
		rb_erase(node, &tree);
		kfree(rb_entry(node, struct member, node));
	}
}

/* Its call is a jump: it leaves no frame, and the leak shows as its caller's. */
static noinline void *allocate_by_tail_call(size_t size)
{
	return kmalloc(size, GFP_KERNEL);
}

static noinline int leak_through_tail_call(void)
{
	for (int i = 0; i < three; i++) {
		void *p = allocate_by_tail_call(large_bytes / 80);

		forget(p);
	}
	return 0;
}

static __always_inline void *allocate_inline(void)
{
	return kmalloc(130, GFP_KERNEL);
}

static noinline int leak_through_inline(void)
{
	for (int i = 0; i < three; i++) {
		void *p = allocate_inline();

		forget(p);
	}
	return 0;
}

/* One leak at each depth, so as many stacks as calls. */
static noinline int leak_recursively(int depth)
{
	void *p = kmalloc(110, GFP_KERNEL);

	forget(p);
	if (depth > 1)
		leak_recursively(depth - 1);
	barrier();
	return 0;
}

static int start_recursive(void)
{
	return leak_recursively(three);
}

/* Another module allocates, this one forgets. */
static noinline int leak_of_other_module(void)
{
	for (int i = 0; i < three; i++) {
		void *p = keeper_allocate(210);

		forget(p);
	}
	return 0;
}

const struct corpus_case pattern_cases[] = { { "error_path", start_error_path },
					     { "failing_init", leak_in_failing_init },
					     { "one_of_many", leak_one_of_many },
					     { "reference", leak_reference },
					     { "half_list", start_list, stop_list },
					     { "half_tree", start_tree, stop_tree },
					     { "tail_call", leak_through_tail_call },
					     { "inlined", leak_through_inline },
					     { "recursive", start_recursive },
					     { "other_module", leak_of_other_module },
					     {} };
