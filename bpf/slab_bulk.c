/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Objects by the array: kmem_cache_alloc_bulk() and kmem_cache_free_bulk(),
 * which is kfree_bulk() too, have no events. The array is read when a free
 * begins, for the kernel reorders it, and when an allocation has returned.
 */
static __always_inline int book_alloc_bulk(void *ctx)
{
	u64 cache = argument_of(ctx, 0), objects = argument_of(ctx, 3), number = result_of(ctx);
	struct allocation allocation = {};
	struct cache_facts facts;
	struct total *total;
	u64 address;

	if ((s64)number <= 0 || !concerns(ctx, PROGRAM_KMEM_CACHE_ALLOC_BULK, 1, 0, 0))
		return 0;
	read_cache(cache, &facts);
	if (!describe(ctx, PROGRAM_KMEM_CACHE_ALLOC_BULK, cache_family(&facts), 0, &allocation))
		return 0;
	allocation.size = facts.size;
	allocation.requested = facts.object_size;
	total = total_for(&allocation, number);
	if (!total)
		return 0;
	for (u32 i = 0; i < BULK_OBJECTS; i++) {
		keep_bound(i);
		if (i >= number)
			return 0;
		address = read_u64(objects + i * sizeof(u64));
		if (!find_outstanding(address))
			enter(address, &allocation, total);
	}
	if (number > BULK_OBJECTS)
		count(COUNT_BULK_BEYOND);
	return 0;
}

/* The same function under the names that it has: without and with allocation profiling. */
KRETFUNC_PROBE(kmem_cache_alloc_bulk)
{
	return book_alloc_bulk(ctx);
}

KRETFUNC_PROBE(kmem_cache_alloc_bulk_noprof)
{
	return book_alloc_bulk(ctx);
}

static __always_inline int book_free_bulk(u64 number, u64 objects)
{
	for (u32 i = 0; i < BULK_OBJECTS; i++) {
		keep_bound(i);
		if (i >= number)
			return 0;
		book_one_free(read_u64(objects + i * sizeof(u64)), 1);
	}
	if (number > BULK_OBJECTS)
		count(COUNT_BULK_BEYOND);
	return 0;
}

KFUNC_PROBE(kmem_cache_free_bulk)
{
	return book_free_bulk(argument_of(ctx, 1), argument_of(ctx, 2));
}

int probe_kmem_cache_free_bulk(u64 *ctx)
{
	return book_free_bulk(ctx[WORD_PT_REGS_PARAMETER_2], ctx[WORD_PT_REGS_PARAMETER_3]);
}
