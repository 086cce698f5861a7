// SPDX-License-Identifier: GPL-2.0-only
/* Every entry of the slab allocator, leaked once. */
#include <linux/mempool.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/timekeeping.h>

#include "corpus.h"

static struct kmem_cache *cache;

static noinline int leak_kmalloc(void)
{
	for (int i = 0; i < three; i++) {
		void *p = kmalloc(120, GFP_KERNEL);

		forget(p);
	}
	return 0;
}

static noinline int leak_kcalloc(void)
{
	for (int i = 0; i < two; i++) {
		void *p = kcalloc(five, 24, GFP_KERNEL);

		forget(p);
	}
	return 0;
}

static noinline int leak_kmalloc_node(void)
{
	for (int i = 0; i < seven; i++) {
		void *p = kmalloc_node(large_bytes / 100, GFP_KERNEL, 0);

		forget(p);
	}
	return 0;
}

static noinline int leak_kmalloc_atomic(void)
{
	void *p;

	local_irq_disable();
	for (int i = 0; i < five; i++) {
		p = kmalloc(90, GFP_ATOMIC);
		forget(p);
	}
	local_irq_enable();
	return 0;
}

static noinline int leak_kmalloc_large(void)
{
	for (int i = 0; i < two; i++) {
		void *p = kmalloc(40000, GFP_KERNEL);

		forget(p);
	}
	return 0;
}

/* Of a size that the compiler does not know: kernels from 6.12 on have two events for it. */
static noinline int leak_kmalloc_large_variable(void)
{
	for (int i = 0; i < three; i++) {
		void *p = kmalloc(large_bytes, GFP_KERNEL);

		forget(p);
	}
	return 0;
}

static int make_cache(slab_flags_t flags)
{
	char name[40];

	/* A name for each load: a cache with objects in it may stay. */
	snprintf(name, sizeof(name), "corpus_%llu", ktime_get_ns());
	cache = kmem_cache_create(name, 104, 0, flags, NULL);
	return cache ? 0 : -ENOMEM;
}

static noinline void leak_kmem_cache(void)
{
	for (int i = 0; i < five; i++) {
		void *p = kmem_cache_alloc(cache, GFP_KERNEL);

		forget(p);
	}
}

/* The objects outlive their cache: the kernel complains, and they are lost for good. */
static int start_cache_left_behind(void)
{
	int err = make_cache(SLAB_TYPESAFE_BY_RCU);

	if (err)
		return err;
	leak_kmem_cache();
	kmem_cache_destroy(cache);
	return 0;
}

/* The cache is merged with others of its size: destroying it destroys nothing. */
static int start_cache_merged(void)
{
	int err = make_cache(0);

	if (err)
		return err;
	leak_kmem_cache();
	kmem_cache_destroy(cache);
	return 0;
}

static noinline void leak_bulk(void)
{
	void *objects[13];
	int number = 0;

	/* The number, or whether it got them: it is all or none. */
	if (kmem_cache_alloc_bulk(cache, GFP_KERNEL, ARRAY_SIZE(objects), objects))
		number = ARRAY_SIZE(objects);

	/* 5 of 13 stay. */
	for (int i = 5; i < number; i++)
		kmem_cache_free(cache, objects[i]);
}

static int start_bulk(void)
{
	int err = make_cache(0);

	if (err)
		return err;
	leak_bulk();
	kmem_cache_destroy(cache);
	return 0;
}

static noinline void leak_bulk_freed(void)
{
	void *objects[13];

	for (int i = 0; i < ARRAY_SIZE(objects); i++)
		objects[i] = kmem_cache_alloc(cache, GFP_KERNEL);
	/* Two stay. */
	kmem_cache_free_bulk(cache, 11, objects);
}

static int start_bulk_freed(void)
{
	int err = make_cache(0);

	if (err)
		return err;
	leak_bulk_freed();
	kmem_cache_destroy(cache);
	return 0;
}

static noinline int leak_krealloc_in_place(void)
{
	for (int i = 0; i < three; i++) {
		void *p = kmalloc(40, GFP_KERNEL), *q = krealloc(p, 35 + seven * 3, GFP_KERNEL);

		forget(q);
	}
	return 0;
}

static noinline int leak_krealloc_moved(void)
{
	for (int i = 0; i < three; i++) {
		void *p = kmalloc(40, GFP_KERNEL), *q = krealloc(p, 490 + seven, GFP_KERNEL);

		forget(q);
	}
	return 0;
}

static noinline int leak_kvmalloc_slab(void)
{
	for (int i = 0; i < two; i++) {
		void *p = kvmalloc(3000, GFP_KERNEL);

		forget(p);
	}
	return 0;
}

static noinline void leak_mempool(mempool_t *pool)
{
	for (int i = 0; i < seven; i++) {
		void *p = mempool_alloc(pool, GFP_KERNEL);

		forget(p);
	}
}

static int start_mempool(void)
{
	mempool_t *pool = mempool_create_kmalloc_pool(4, 250);

	if (!pool)
		return -ENOMEM;
	leak_mempool(pool);
	mempool_destroy(pool);
	return 0;
}

#ifdef kmalloc_nolock
static noinline int leak_kmalloc_nolock(void)
{
	for (int i = 0; i < five; i++) {
		void *p = kmalloc_nolock(300, 0, NUMA_NO_NODE);

		forget(p);
	}
	return 0;
}
#endif

static noinline int leak_cache_itself(void)
{
	int err = make_cache(SLAB_TYPESAFE_BY_RCU);

	barrier();
	return err;
}

const struct corpus_case slab_cases[] = { { "kmalloc", leak_kmalloc },
					  { "kcalloc", leak_kcalloc },
					  { "kmalloc_node", leak_kmalloc_node },
					  { "kmalloc_atomic", leak_kmalloc_atomic },
					  { "kmalloc_large", leak_kmalloc_large },
					  { "kmalloc_large_variable", leak_kmalloc_large_variable },
					  { "cache_left_behind", start_cache_left_behind },
					  { "cache_merged", start_cache_merged },
					  { "cache_itself", leak_cache_itself },
					  { "bulk", start_bulk },
					  { "bulk_freed", start_bulk_freed },
					  { "krealloc_in_place", leak_krealloc_in_place },
					  { "krealloc_moved", leak_krealloc_moved },
					  { "kvmalloc_slab", leak_kvmalloc_slab },
#ifdef kmalloc_nolock
					  { "kmalloc_nolock", leak_kmalloc_nolock },
#endif
					  { "mempool", start_mempool },
					  {} };
