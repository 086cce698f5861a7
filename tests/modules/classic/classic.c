// SPDX-License-Identifier: GPL-2.0-only
/*
 * Leaks that the classic text reports show, at each load, in numbers that are prime so that a
 * right count is no accident:
 *
 *   vmalloc=N   N regions of 40000 bytes: 10 pages each in /proc/vmallocinfo
 *   kmalloc=N   N objects of 1500 bytes, in kmalloc-2k
 *   pages=N     N blocks of order 2 (4 pages), which no counter of /proc/meminfo names
 *   objects=N   N objects of a cache that is destroyed at unload all the same
 *   hold=DEV    one reference to a network device, never dropped
 */
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <net/net_namespace.h>

static int vmalloc_count;
module_param_named(vmalloc, vmalloc_count, int, 0444);
static int kmalloc_count;
module_param_named(kmalloc, kmalloc_count, int, 0444);
static int pages_count;
module_param_named(pages, pages_count, int, 0444);
static int objects_count;
module_param_named(objects, objects_count, int, 0444);
static char *hold;
module_param(hold, charp, 0444);

static struct kmem_cache *cache;

/* Stored where no one looks, so that the compiler keeps the allocations. */
static void *volatile forgotten;

static noinline void classic_leak_vmalloc(void)
{
	forgotten = vmalloc(40000);
	barrier();
}

static noinline void classic_leak_kmalloc(void)
{
	forgotten = kmalloc(1500, GFP_KERNEL);
	barrier();
}

static noinline void classic_leak_pages(void)
{
	forgotten = (void *)__get_free_pages(GFP_KERNEL, 2);
	barrier();
}

static noinline void classic_leak_object(void)
{
	forgotten = kmem_cache_alloc(cache, GFP_KERNEL);
	barrier();
}

static int __init classic_init(void)
{
	int i;

	for (i = 0; i < vmalloc_count; i++)
		classic_leak_vmalloc();
	for (i = 0; i < kmalloc_count; i++)
		classic_leak_kmalloc();
	for (i = 0; i < pages_count; i++)
		classic_leak_pages();
	if (objects_count > 0) {
		/* a constructor would do as well: anything that keeps the cache from being merged */
		cache = kmem_cache_create("classic_objects", 328, 0, SLAB_TYPESAFE_BY_RCU, NULL);
		if (!cache)
			return -ENOMEM;
		for (i = 0; i < objects_count; i++)
			classic_leak_object();
	}
	if (hold) {
		struct net_device *dev = dev_get_by_name(&init_net, hold);

		if (!dev)
			return -ENODEV;
	}
	forgotten = NULL;
	return 0;
}

static void __exit classic_exit(void)
{
	if (cache)
		kmem_cache_destroy(cache);
}

module_init(classic_init);
module_exit(classic_exit);
MODULE_DESCRIPTION("Leaks for the text reports of the kernel");
MODULE_LICENSE("GPL");
