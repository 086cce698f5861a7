// SPDX-License-Identifier: GPL-2.0-only
/* Goto ladders that jump past a rung: of each kind of memory one, and one that returns at once. */
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/percpu.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>
#include "errorpaths.h"

/*
 * A ladder of three rungs: the second fails well, the third forgets the first. ALLOC_* and FREE_*
 * are an expression and a statement.
 */
#define LADDER(name, type, alloc, free)					\
static type name##_first;						\
static void *name##_second, *name##_third;				\
static noinline int name##_up(void)					\
{									\
	name##_first = alloc;						\
	if (!name##_first)						\
		return -ENOMEM;						\
	name##_second = kmalloc(40, GFP_KERNEL);			\
	if (!name##_second)						\
		goto free_first;					\
	name##_third = kzalloc(80, GFP_KERNEL);				\
	if (!name##_third)						\
		goto free_second; /* BUG: forgets the first */		\
	return 0;							\
free_second:								\
	kfree(name##_second);						\
	return -ENOMEM;							\
free_first:								\
	free(name##_first);						\
	return -ENOMEM;							\
}									\
static void name##_down(void)						\
{									\
	kfree(name##_third);						\
	kfree(name##_second);						\
	free(name##_first);						\
}

#define free_two_pages(page) free_pages(page, 1)

LADDER(bad_kmalloc, void *, kmalloc(200, GFP_KERNEL), kfree)
LADDER(bad_kzalloc, void *, kzalloc(300, GFP_KERNEL), kfree)
LADDER(bad_large, void *, kmalloc(20000, GFP_KERNEL), kfree)
LADDER(bad_kstrdup, char *, kstrdup("a name that is long enough", GFP_KERNEL), kfree)
LADDER(bad_kasprintf, char *, kasprintf(GFP_KERNEL, "name %d of many", 7), kfree)
LADDER(bad_kmemdup, void *, kmemdup("0123456789abcdef0123456789abcdef", 33, GFP_KERNEL), kfree)
LADDER(bad_kvmalloc, void *, kvmalloc(500, GFP_KERNEL), kvfree)
LADDER(bad_vmalloc, void *, vmalloc(3 * PAGE_SIZE), vfree)
LADDER(bad_vzalloc, void *, vzalloc(2 * PAGE_SIZE), vfree)
LADDER(bad_percpu, int __percpu *, alloc_percpu(int), free_percpu)
LADDER(bad_pages, unsigned long, __get_free_pages(GFP_KERNEL, 1), free_two_pages)
LADDER(bad_workqueue, struct workqueue_struct *, alloc_workqueue("errorpaths", 0, 0),
       destroy_workqueue)

const struct error_path ladders[] = {
	PATH(bad_kmalloc), PATH(bad_kzalloc), PATH(bad_large), PATH(bad_kstrdup),
	PATH(bad_kasprintf), PATH(bad_kmemdup), PATH(bad_kvmalloc), PATH(bad_vmalloc),
	PATH(bad_vzalloc), PATH(bad_percpu), PATH(bad_pages), PATH(bad_workqueue),
};
const int ladder_count = ARRAY_SIZE(ladders);
