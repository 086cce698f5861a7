/* SPDX-License-Identifier: GPL-2.0-only */
/* kmalloc, kmem_cache_alloc and their frees: include/trace/events/kmem.h. */

#ifdef ARG_KMALLOC_PTR
static __always_inline int book_kmalloc(raw_tp *ctx, u32 copy)
{
	u64 ptr = ctx->args[ARG_KMALLOC_PTR];

	if (seen_by_first(ctx, ptr, ALLOC_KMALLOC, copy) ||
	    !concerns(ctx, PROGRAM_KMALLOC + copy - 1, ptr, ctx->args[ARG_KMALLOC_CALL_SITE]))
		return 0;
	book_allocation(ctx, PROGRAM_KMALLOC, copy, FAMILY_KMALLOC, ptr,
			ctx->args[ARG_KMALLOC_BYTES_ALLOC], ctx->args[ARG_KMALLOC_BYTES_REQ], 0,
			ctx->args[ARG_KMALLOC_CALL_SITE]);
	return 0;
}

int on_kmalloc_1(raw_tp *ctx)
{
	return book_kmalloc(ctx, 1);
}

int on_kmalloc_2(raw_tp *ctx)
{
	return book_kmalloc(ctx, 2);
}
#endif

/* Gone since commit 11e9734bcb6a ("mm/slab_common: unify NUMA and UMA version of tracepoints", v6.1). */
#ifdef ARG_KMALLOC_NODE_PTR
static __always_inline int book_kmalloc_node(raw_tp *ctx, u32 copy)
{
	u64 ptr = ctx->args[ARG_KMALLOC_NODE_PTR];

	if (seen_by_first(ctx, ptr, ALLOC_KMALLOC_NODE, copy) ||
	    !concerns(ctx, PROGRAM_KMALLOC_NODE + copy - 1, ptr,
		      ctx->args[ARG_KMALLOC_NODE_CALL_SITE]))
		return 0;
	book_allocation(ctx, PROGRAM_KMALLOC_NODE, copy, FAMILY_KMALLOC, ptr,
			ctx->args[ARG_KMALLOC_NODE_BYTES_ALLOC],
			ctx->args[ARG_KMALLOC_NODE_BYTES_REQ], 0,
			ctx->args[ARG_KMALLOC_NODE_CALL_SITE]);
	return 0;
}

int on_kmalloc_node_1(raw_tp *ctx)
{
	return book_kmalloc_node(ctx, 1);
}

int on_kmalloc_node_2(raw_tp *ctx)
{
	return book_kmalloc_node(ctx, 2);
}
#endif

/*
 * The event of a slab cache tells sizes up to v6.0 and the cache since then
 * (commit 2c1d697fb8ba, "mm/slab_common: drop kmem_alloc & avoid dereferencing
 * fields when not using", v6.1).
 */
#ifdef ARG_KMEM_CACHE_ALLOC_PTR
/*
 * A 32-bit member of struct kmem_cache. A typed program, one that the verifier gives a pointer of
 * that type, reads it itself; another needs a helper, which costs more than a map look-up.
 */
static __always_inline u32 cache_member(u64 cache, u32 member, int typed)
{
	return typed ? *(u32 *)(cache + member) : read_u32(cache + member);
}

static __always_inline u32 cache_family(u64 cache, int typed)
{
	if (cache && cache_member(cache, OFF_KMEM_CACHE_FLAGS, typed) & SLAB_RECLAIM_ACCOUNT_BIT)
		return FAMILY_RECLAIMABLE;
	return FAMILY_KMEM_CACHE;
}

static __always_inline int book_kmem_cache_alloc(raw_tp *ctx, u32 copy, int typed)
{
	u64 ptr = ctx->args[ARG_KMEM_CACHE_ALLOC_PTR], cache = 0, size, requested;

	if (seen_by_first(ctx, ptr, ALLOC_KMEM_CACHE, copy) ||
	    !concerns(ctx, PROGRAM_KMEM_CACHE_ALLOC + copy - 1, ptr,
		      ctx->args[ARG_KMEM_CACHE_ALLOC_CALL_SITE]))
		return 0;
#ifdef ARG_KMEM_CACHE_ALLOC_S
	cache = ctx->args[ARG_KMEM_CACHE_ALLOC_S];
#endif
#ifdef ARG_KMEM_CACHE_ALLOC_BYTES_ALLOC
	size = ctx->args[ARG_KMEM_CACHE_ALLOC_BYTES_ALLOC];
	requested = ctx->args[ARG_KMEM_CACHE_ALLOC_BYTES_REQ];
#else
	size = cache_member(cache, OFF_KMEM_CACHE_SIZE, typed);
	requested = cache_member(cache, OFF_KMEM_CACHE_OBJECT_SIZE, typed);
#endif
	book_allocation(ctx, PROGRAM_KMEM_CACHE_ALLOC, copy, cache_family(cache, typed), ptr, size,
			requested, cache, ctx->args[ARG_KMEM_CACHE_ALLOC_CALL_SITE]);
	return 0;
}

int on_kmem_cache_alloc_1(raw_tp *ctx)
{
	return book_kmem_cache_alloc(ctx, 1, 0);
}

int on_kmem_cache_alloc_2(raw_tp *ctx)
{
	return book_kmem_cache_alloc(ctx, 2, 0);
}

#if HAS_TYPED_KMEM_CACHE_ALLOC
int on_typed_kmem_cache_alloc_1(raw_tp *ctx)
{
	return book_kmem_cache_alloc(ctx, 1, 1);
}

int on_typed_kmem_cache_alloc_2(raw_tp *ctx)
{
	return book_kmem_cache_alloc(ctx, 2, 1);
}
#endif
#endif

#ifdef ARG_KMEM_CACHE_ALLOC_NODE_PTR
static __always_inline int book_kmem_cache_alloc_node(raw_tp *ctx, u32 copy)
{
	u64 ptr = ctx->args[ARG_KMEM_CACHE_ALLOC_NODE_PTR];

	if (seen_by_first(ctx, ptr, ALLOC_KMEM_CACHE_NODE, copy) ||
	    !concerns(ctx, PROGRAM_KMEM_CACHE_ALLOC_NODE + copy - 1, ptr,
		      ctx->args[ARG_KMEM_CACHE_ALLOC_NODE_CALL_SITE]))
		return 0;
	book_allocation(ctx, PROGRAM_KMEM_CACHE_ALLOC_NODE, copy, FAMILY_KMEM_CACHE, ptr,
			ctx->args[ARG_KMEM_CACHE_ALLOC_NODE_BYTES_ALLOC],
			ctx->args[ARG_KMEM_CACHE_ALLOC_NODE_BYTES_REQ], 0,
			ctx->args[ARG_KMEM_CACHE_ALLOC_NODE_CALL_SITE]);
	return 0;
}

int on_kmem_cache_alloc_node_1(raw_tp *ctx)
{
	return book_kmem_cache_alloc_node(ctx, 1);
}

int on_kmem_cache_alloc_node_2(raw_tp *ctx)
{
	return book_kmem_cache_alloc_node(ctx, 2);
}
#endif

int on_kfree_1(raw_tp *ctx)
{
	book_free(ctx, ctx->args[ARG_KFREE_PTR], ctx->args[ARG_KFREE_CALL_SITE], FREE_KFREE, 1);
	return 0;
}

int on_kfree_2(raw_tp *ctx)
{
	book_free(ctx, ctx->args[ARG_KFREE_PTR], ctx->args[ARG_KFREE_CALL_SITE], FREE_KFREE, 2);
	return 0;
}

int on_kmem_cache_free_1(raw_tp *ctx)
{
	book_free(ctx, ctx->args[ARG_KMEM_CACHE_FREE_PTR], ctx->args[ARG_KMEM_CACHE_FREE_CALL_SITE],
		  FREE_KMEM_CACHE_FREE, 1);
	return 0;
}

int on_kmem_cache_free_2(raw_tp *ctx)
{
	book_free(ctx, ctx->args[ARG_KMEM_CACHE_FREE_PTR], ctx->args[ARG_KMEM_CACHE_FREE_CALL_SITE],
		  FREE_KMEM_CACHE_FREE, 2);
	return 0;
}
