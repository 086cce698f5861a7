/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * kmalloc_nolock() and kfree_nolock(), for any context, have no events. An
 * object lies in one of kmalloc's caches, of which the event of others tells the size.
 */
#ifdef HAS_KMALLOC_NOLOCK
#define SMALLEST_CACHE_BYTES 8

static __always_inline u64 kmalloc_cache_bytes(u64 requested)
{
	u64 bytes = SMALLEST_CACHE_BYTES;

	if (requested > 64 && requested <= 96)
		return 96;
	if (requested > 128 && requested <= 192)
		return 192;
#pragma unroll
	for (u32 i = 0; i < 10; i++) {
		if (bytes < requested)
			bytes *= 2;
	}
	return bytes;
}

static __always_inline int book_nolock(void *ctx, u64 address)
{
	u64 requested = argument_of(ctx, 0);

	if (address && concerns(ctx, PROGRAM_KMALLOC_NOLOCK, 1, address, 0))
		book_allocation(ctx, PROGRAM_KMALLOC_NOLOCK, 1, FAMILY_KMALLOC, address,
				kmalloc_cache_bytes(requested), requested, 0, 0);
	return 0;
}

#ifdef PARAMETERS_kmalloc_nolock_noprof
KRETFUNC_PROBE(kmalloc_nolock_noprof)
{
	return book_nolock(ctx, result_of(ctx, kmalloc_nolock_noprof));
}
#endif

#ifdef PARAMETERS__kmalloc_nolock_noprof
KRETFUNC_PROBE(_kmalloc_nolock_noprof)
{
	return book_nolock(ctx, result_of(ctx, _kmalloc_nolock_noprof));
}
#endif

KFUNC_PROBE(kfree_nolock)
{
	book_one_free(argument_of(ctx, 0), 1);
	return 0;
}
#endif
