/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Objects by the array: kmem_cache_alloc_bulk() and kmem_cache_free_bulk(),
 * which is kfree_bulk() too, have no events. The array is read when a free
 * begins, for the kernel reorders it, and when an allocation has returned.
 */
static __always_inline int book_alloc_bulk(void *ctx, u64 number)
{
	u64 cache = argument_of(ctx, 0), objects = argument_of(ctx, 3);
	struct allocation allocation = {};
	struct cache_facts facts;
	struct total *total;
	u64 address;

	if (!number || number > argument_of(ctx, 2) ||
	    !concerns(ctx, PROGRAM_KMEM_CACHE_ALLOC_BULK, 1, 0, 0))
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

/* It returns their number, or (7.3) whether it got as many as were asked for. */
#define number_of(ctx, function)                                                                   \
	(RESULT_BYTES_##function > 1 ? result_of(ctx, function)                                    \
				     : (result_of(ctx, function) ? argument_of(ctx, 2) : 0))

/* The same function under the names that it has: without and with allocation profiling. */
#ifdef PARAMETERS_kmem_cache_alloc_bulk
KRETFUNC_PROBE(kmem_cache_alloc_bulk)
{
	return book_alloc_bulk(ctx, number_of(ctx, kmem_cache_alloc_bulk));
}
#endif

#ifdef PARAMETERS_kmem_cache_alloc_bulk_noprof
KRETFUNC_PROBE(kmem_cache_alloc_bulk_noprof)
{
	return book_alloc_bulk(ctx, number_of(ctx, kmem_cache_alloc_bulk_noprof));
}
#endif

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
