// SPDX-License-Identifier: GPL-2.0-only
/* Leaks that hang on others, and leaks that only look so. */
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>

struct record {
	int number;
	char *name;
	char *label;
	struct buffer *buffer;
};

struct buffer {
	size_t length;
	void *data;
};

/* Set at run time, so that loops stay loops. */
static int seven = 7, five = 5;
module_param(seven, int, 0444);
module_param(five, int, 0444);

/*
 * A structure with two strings, and a buffer with its data: one kfree_record() is missing. The
 * label, whose address is in the middle of the record, is of another size than the record: else it
 * could be the free list's.
 */
static noinline void leak_records(void)
{
	for (int i = 0; i < seven; i++) {
		struct record *record = kmalloc(sizeof(*record), GFP_KERNEL);

		if (!record)
			return;
		record->number = i;
		record->name = kstrdup("a record", GFP_KERNEL);
		record->label = kstrdup("a label that takes more than 32 bytes", GFP_KERNEL);
		record->buffer = kmalloc(sizeof(*record->buffer), GFP_KERNEL);
		if (record->buffer)
			record->buffer->data = kmalloc(300, GFP_KERNEL);
		barrier_data(record);
	}
}

/*
 * Two leaks of one function, in turn, neither of which knows the other. What lay in their memory
 * before was an object that held the address of the next.
 */
static noinline void leak_twins(void)
{
	for (int i = 0; i < five; i++) {
		void **stale = kmalloc(500, GFP_KERNEL);
		void *first, *second;

		if (!stale)
			return;
		second = kmalloc(200, GFP_KERNEL);
		stale[3] = second;
		barrier_data(stale);
		kfree(stale);
		first = kmalloc(500, GFP_KERNEL);
		OPTIMIZER_HIDE_VAR(first);
		OPTIMIZER_HIDE_VAR(second);
	}
}

static int __init nested_init(void)
{
	leak_records();
	leak_twins();
	return 0;
}

static void __exit nested_exit(void)
{
}

module_init(nested_init);
module_exit(nested_exit);
MODULE_DESCRIPTION("Leaks that hang on others");
MODULE_LICENSE("GPL");
