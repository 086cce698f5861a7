// SPDX-License-Identifier: GPL-2.0-only
/* The same without the mistakes: as many paths that give back all. */
#include <linux/debugfs.h>
#include <linux/device.h>
#include <linux/err.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/percpu.h>
#include <linux/platform_device.h>
#include <linux/rcupdate.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>
#include "errorpaths.h"

#define LADDER(name, type, alloc, free)					\
static type name##_first;						\
static void *name##_second;						\
static noinline int name##_up(void)					\
{									\
	name##_first = alloc;						\
	if (!name##_first)						\
		return -ENOMEM;						\
	name##_second = kmalloc(40, GFP_KERNEL);			\
	if (!name##_second) {						\
		free(name##_first);					\
		return -ENOMEM;						\
	}								\
	return 0;							\
}									\
static void name##_down(void)						\
{									\
	kfree(name##_second);						\
	free(name##_first);						\
}

#define free_two_pages(page) free_pages(page, 1)

LADDER(good_kmalloc, void *, kmalloc(200, GFP_KERNEL), kfree)
LADDER(good_kzalloc, void *, kzalloc(300, GFP_KERNEL), kfree)
LADDER(good_large, void *, kmalloc(20000, GFP_KERNEL), kfree)
LADDER(good_kstrdup, char *, kstrdup("a name that is long enough", GFP_KERNEL), kfree)
LADDER(good_kasprintf, char *, kasprintf(GFP_KERNEL, "name %d of many", 7), kfree)
LADDER(good_kmemdup, void *, kmemdup("0123456789abcdef0123456789abcdef", 33, GFP_KERNEL), kfree)
LADDER(good_kvmalloc, void *, kvmalloc(500, GFP_KERNEL), kvfree)
LADDER(good_vmalloc, void *, vmalloc(3 * PAGE_SIZE), vfree)
LADDER(good_vzalloc, void *, vzalloc(2 * PAGE_SIZE), vfree)
LADDER(good_percpu, int __percpu *, alloc_percpu(int), free_percpu)
LADDER(good_pages, unsigned long, __get_free_pages(GFP_KERNEL, 1), free_two_pages)
LADDER(good_workqueue, struct workqueue_struct *, alloc_workqueue("errorpaths", 0, 0),
       destroy_workqueue)

/* A loop that takes back what it did. */
static void *parts[4];

static noinline int good_loop_up(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		parts[i] = kmalloc(96, GFP_KERNEL);
		if (!parts[i])
			goto unwind;
	}
	return 0;
unwind:
	while (i--)
		kfree(parts[i]);
	return -ENOMEM;
}

static void good_loop_down(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(parts); i++)
		kfree(parts[i]);
}

/* The load goes on without it. */
static void *option;

static noinline int good_tolerant_up(void)
{
	option = kmalloc(224, GFP_KERNEL);
	return 0;
}

static void good_tolerant_down(void)
{
	kfree(option);
}

/* What is given back comes late: through RCU. */
struct late {
	struct rcu_head rcu;
	char bytes[100];
};
static struct late *late;
static void *punctual;

static noinline int good_rcu_up(void)
{
	late = kmalloc(sizeof(*late), GFP_KERNEL);
	if (!late)
		return -ENOMEM;
	punctual = kmalloc(60, GFP_KERNEL);
	if (!punctual) {
		kfree_rcu(late, rcu);
		return -ENOMEM;
	}
	return 0;
}

static void good_rcu_down(void)
{
	kfree_rcu(late, rcu);
	kfree(punctual);
}

/* The second way does when the first fails. */
static void *fallback;

static noinline int good_fallback_up(void)
{
	fallback = kmalloc(3000, GFP_KERNEL);
	if (!fallback)
		fallback = kzalloc(300, GFP_KERNEL);
	return fallback ? 0 : -ENOMEM;
}

static void good_fallback_down(void)
{
	kfree(fallback);
}

/* Managed memory goes with the device, whatever failed. */
static struct platform_device *managed;

static noinline int good_managed_up(void)
{
	managed = platform_device_register_simple("errorpaths-good", PLATFORM_DEVID_NONE, NULL, 0);
	if (IS_ERR(managed))
		return PTR_ERR(managed);
	if (devm_kmalloc(&managed->dev, 176, GFP_KERNEL) &&
	    devm_kstrdup(&managed->dev, "managed too", GFP_KERNEL))
		return 0;
	platform_device_unregister(managed);
	return -ENOMEM;
}

static void good_managed_down(void)
{
	platform_device_unregister(managed);
}

/* debugfs may fail, and nobody asks. */
static struct dentry *directory;

static noinline int good_debugfs_up(void)
{
	directory = debugfs_create_dir("errorpaths-good", NULL);
	debugfs_create_file("file", 0444, directory, NULL, NULL);
	return 0;
}

static void good_debugfs_down(void)
{
	debugfs_remove_recursive(directory);
}

/* It must not fail, so it is not made to. */
static void *sure;

static noinline int good_nofail_up(void)
{
	sure = kmalloc(120, GFP_KERNEL | __GFP_NOFAIL);
	*(char *)sure = 0;
	return 0;
}

static void good_nofail_down(void)
{
	kfree(sure);
}

/* A cache and an object of it. */
static struct kmem_cache *cache;
static void *object;

static noinline int good_cache_up(void)
{
	cache = kmem_cache_create("errorpaths", 72, 0, 0, NULL);
	if (!cache)
		return -ENOMEM;
	object = kmem_cache_alloc(cache, GFP_KERNEL);
	if (!object) {
		kmem_cache_destroy(cache);
		return -ENOMEM;
	}
	return 0;
}

static void good_cache_down(void)
{
	kmem_cache_free(cache, object);
	kmem_cache_destroy(cache);
}

const struct error_path innocents[] = {
	PATH(good_kmalloc), PATH(good_kzalloc), PATH(good_large), PATH(good_kstrdup),
	PATH(good_kasprintf), PATH(good_kmemdup), PATH(good_kvmalloc), PATH(good_vmalloc),
	PATH(good_vzalloc), PATH(good_percpu), PATH(good_pages), PATH(good_workqueue),
	PATH(good_loop), PATH(good_tolerant), PATH(good_rcu), PATH(good_fallback),
	PATH(good_managed), PATH(good_debugfs), PATH(good_nofail), PATH(good_cache),
};
const int innocent_count = ARRAY_SIZE(innocents);
