// SPDX-License-Identifier: GPL-2.0-only
/* Memory that is given back, by ways that a tracer may not see. */
#include <linux/hrtimer.h>
#include <linux/mempool.h>
#include <linux/mm.h>
#include <linux/percpu.h>
#include <linux/rcupdate.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>

#include "keeper.h"
#include "corpus.h"
#include "renamed.h"

struct item {
	struct rcu_head rcu;
	char data[120];
};

static noinline int give_to_kfree_rcu(void)
{
	for (int i = 0; i < 1009; i++) {
		struct item *item = kmalloc(sizeof(*item), GFP_KERNEL);

		if (item)
			kfree_rcu(item, rcu);
	}
	return 0;
}

static noinline int give_to_headless_kfree_rcu(void)
{
	for (int i = 0; i < 103; i++) {
		char *p = kmalloc(70, GFP_KERNEL), *area = vmalloc(PAGE_SIZE);

		if (p)
			kvfree_rcu_mightsleep(p);
		if (area)
			kvfree_rcu_mightsleep(area);
	}
	return 0;
}

/* From any context, without a lock: of such objects, and of those of kmalloc(). */
#ifdef kmalloc_nolock
static noinline int free_without_lock(void)
{
	for (int i = 0; i < 101; i++) {
		kfree_nolock(kmalloc_nolock(70, 0, NUMA_NO_NODE));
		kfree(kmalloc_nolock(70, 0, NUMA_NO_NODE));
	}
	return 0;
}
#endif

#ifdef kfree_rcu_nolock
struct lockless {
	struct kvfree_rcu_head rcu;
	char data[120];
};

static noinline int give_to_kfree_rcu_nolock(void)
{
	for (int i = 0; i < 103; i++) {
		struct lockless *item = kmalloc_nolock(sizeof(*item), 0, NUMA_NO_NODE);

		if (item)
			kfree_rcu_nolock(item, rcu);
	}
	return 0;
}
#endif

static void free_item(struct rcu_head *rcu)
{
	kfree(container_of(rcu, struct item, rcu));
}

static noinline int give_to_call_rcu(void)
{
	for (int i = 0; i < 103; i++) {
		struct item *item = kmalloc(sizeof(*item), GFP_KERNEL);

		if (item)
			call_rcu(&item->rcu, free_item);
	}
	return 0;
}

static void wait_for_rcu(void)
{
	rcu_barrier();
}

static noinline int free_in_bulk(void)
{
	static void *objects[307];

	for (int i = 0; i < ARRAY_SIZE(objects); i++)
		objects[i] = kmalloc(i % 2 ? 60 : 600, GFP_KERNEL);
	kfree_bulk(ARRAY_SIZE(objects), objects);
	return 0;
}

/* Objects of a cache of their own, which is destroyed, freed in three ways. */
static noinline int free_objects_of_a_cache(void)
{
	struct kmem_cache *cache =
		kmem_cache_create("corpus_typesafe", 120, 0, SLAB_TYPESAFE_BY_RCU, NULL);
	void *objects[101];

	if (!cache)
		return -ENOMEM;
	for (int i = 0; i < ARRAY_SIZE(objects); i++)
		objects[i] = kmem_cache_alloc(cache, GFP_KERNEL);
	for (int i = 0; i < 31; i++)
		kfree(objects[i]);
	for (int i = 31; i < 61; i++)
		kmem_cache_free(cache, objects[i]);
	kmem_cache_free_bulk(cache, ARRAY_SIZE(objects) - 61, objects + 61);
	kmem_cache_destroy(cache);
	return 0;
}

static noinline int grow_and_free(void)
{
	void *p = NULL, *larger;

	for (size_t size = 16; size < 30000; size += 97) {
		larger = krealloc(p, size, GFP_KERNEL);
		if (!larger)
			break;
		p = larger;
	}
	kfree(p);
	return 0;
}

static noinline int free_sensitive(void)
{
	for (int i = 0; i < 11; i++) {
		kfree_sensitive(kmalloc(99, GFP_KERNEL));
		kvfree_sensitive(kvmalloc(6 << 20, GFP_KERNEL), 6 << 20);
		kfree_const(kstrdup_const("in .rodata", GFP_KERNEL));
	}
	return 0;
}

static void *passed[101];

static void free_passed(struct work_struct *work)
{
	for (int i = 0; i < ARRAY_SIZE(passed); i++)
		kfree(passed[i]);
}

static DECLARE_WORK(freeing_work, free_passed);

static noinline int free_on_another_cpu(void)
{
	for (int i = 0; i < ARRAY_SIZE(passed); i++)
		passed[i] = kmalloc(130, GFP_KERNEL);
	schedule_work_on(cpumask_last(cpu_online_mask), &freeing_work);
	flush_work(&freeing_work);
	return 0;
}

/* An interrupt that allocates and frees a thousand times a second, while the module does too. */
static void *in_interrupt[16];
static unsigned int ticks;

static enum hrtimer_restart allocate_and_free(struct hrtimer *timer)
{
	int slot = ticks++ % ARRAY_SIZE(in_interrupt);

	kfree(in_interrupt[slot]);
	in_interrupt[slot] = kmalloc(100, GFP_ATOMIC);
	hrtimer_forward_now(timer, ms_to_ktime(1));
	return HRTIMER_RESTART;
}

static struct hrtimer ticker;

static noinline int free_in_interrupts(void)
{
	hrtimer_setup(&ticker, allocate_and_free, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
	hrtimer_start(&ticker, ms_to_ktime(1), HRTIMER_MODE_REL);
	for (int i = 0; i < 20011; i++) {
		void *p = kmalloc(100, GFP_KERNEL);

		forget(p);
		kfree(p);
	}
	return 0;
}

static void stop_interrupts(void)
{
	hrtimer_cancel(&ticker);
	for (int i = 0; i < ARRAY_SIZE(in_interrupt); i++)
		kfree(in_interrupt[i]);
}

static noinline int free_pages_by_the_piece(void)
{
	struct page *page = alloc_pages(GFP_KERNEL, 3);
	void *exact = alloc_pages_exact(5 * PAGE_SIZE, GFP_KERNEL);

	if (page) {
		split_page(page, 3);
		for (int i = 0; i < 8; i++)
			__free_page(page + i);
	}
	if (exact)
		free_pages_exact(exact, 5 * PAGE_SIZE);
	return 0;
}

static noinline int free_areas(void)
{
	struct page *page = alloc_page(GFP_KERNEL);
	void *mapped, *mapped_late;

	if (!page)
		return -ENOMEM;
	for (int i = 0; i < 11; i++) {
		mapped = vmap(&page, 1, VM_MAP, PAGE_KERNEL);
		vfree(vmalloc(20000));
		/* From an interrupt, or what looks like one, it is put off to a work item. */
		mapped_late = vmalloc(20000);
		local_bh_disable();
		vfree(mapped_late);
		local_bh_enable();
		vunmap(mapped);
	}
	__free_page(page);
	return 0;
}

static noinline int free_percpu_memory(void)
{
	for (int i = 0; i < 211; i++)
		free_percpu(__alloc_percpu(16 + i, 8));
	return 0;
}

static noinline int fill_a_mempool(void)
{
	mempool_t *pool = mempool_create_kmalloc_pool(16, 300);
	void *elements[16];

	if (!pool)
		return -ENOMEM;
	for (int i = 0; i < ARRAY_SIZE(elements); i++)
		elements[i] = mempool_alloc(pool, GFP_KERNEL);
	for (int i = 0; i < ARRAY_SIZE(elements); i++)
		mempool_free(elements[i], pool);
	mempool_destroy(pool);
	return 0;
}

/* Another module holds the memory for good: one object, made in the first load. */
static noinline int set_up_once(void)
{
	if (!keeper_full(1))
		keeper_keep(kmalloc(500, GFP_KERNEL));
	return 0;
}

/* Another module's pool takes objects until it is full, in the third load. */
static noinline int fill_a_pool(void)
{
	for (int i = 0; i < 3; i++) {
		if (!keeper_full(8))
			keeper_keep(kmalloc(500, GFP_KERNEL));
	}
	return 0;
}

const struct corpus_case innocent_cases[] = {
	{ "innocent_kfree_rcu", give_to_kfree_rcu },
	{ "innocent_headless_kfree_rcu", give_to_headless_kfree_rcu },
#ifdef kmalloc_nolock
	{ "innocent_nolock", free_without_lock },
#endif
#ifdef kfree_rcu_nolock
	{ "innocent_kfree_rcu_nolock", give_to_kfree_rcu_nolock },
#endif
	{ "innocent_call_rcu", give_to_call_rcu, wait_for_rcu },
	{ "innocent_bulk", free_in_bulk },
	{ "innocent_cache", free_objects_of_a_cache },
	{ "innocent_krealloc", grow_and_free },
	{ "innocent_sensitive", free_sensitive },
	{ "innocent_other_cpu", free_on_another_cpu },
	{ "innocent_interrupts", free_in_interrupts, stop_interrupts },
	{ "innocent_pieces", free_pages_by_the_piece },
	{ "innocent_areas", free_areas },
	{ "innocent_percpu", free_percpu_memory },
	{ "innocent_mempool", fill_a_mempool },
	{ "innocent_set_up_once", set_up_once },
	{ "innocent_pool_that_fills", fill_a_pool },
	{}
};
