/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * krealloc() that finds room in place has no event: the object stays, what was
 * asked for changes. One that moves has the events of a kmalloc and a kfree.
 */
static __always_inline int book_resize(u64 address, u64 result, u64 requested)
{
	struct allocation *found;
	struct total *total;

	if (!address || address != result)
		return 0;
	found = find_outstanding(address);
	if (!found || found->requested == requested)
		return 0;
	total = total_of(found);
	if (total)
		__sync_fetch_and_add(&total->allocated_requested,
				     (s64)requested - (s64)found->requested);
	found->requested = requested;
	return 0;
}

#ifdef PARAMETERS_krealloc
KRETFUNC_PROBE(krealloc)
{
	return book_resize(argument_of(ctx, 0), result_of(ctx, krealloc), argument_of(ctx, 1));
}
#endif

#ifdef PARAMETERS_krealloc_noprof
KRETFUNC_PROBE(krealloc_noprof)
{
	return book_resize(argument_of(ctx, 0), result_of(ctx, krealloc_noprof),
			   argument_of(ctx, 1));
}
#endif

#ifdef PARAMETERS_krealloc_node_align_noprof
KRETFUNC_PROBE(krealloc_node_align_noprof)
{
	return book_resize(argument_of(ctx, 0), result_of(ctx, krealloc_node_align_noprof),
			   argument_of(ctx, 1));
}
#endif
