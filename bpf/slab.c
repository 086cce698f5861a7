/* SPDX-License-Identifier: GPL-2.0-only */
/* kmalloc, kmem_cache_alloc and their frees: include/trace/events/kmem.h. */

#ifdef ARG_KMALLOC_PTR
static __always_inline int book_kmalloc(raw_tp *ctx, u32 copy)
{
	u64 ptr = ctx->args[ARG_KMALLOC_PTR];

	if (seen_by_first(ctx, ptr, ALLOC_KMALLOC, copy) ||
	    !concerns(ctx, PROGRAM_KMALLOC, copy, ptr, ctx->args[ARG_KMALLOC_CALL_SITE]))
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
	    !concerns(ctx, PROGRAM_KMALLOC_NODE, copy, ptr, ctx->args[ARG_KMALLOC_NODE_CALL_SITE]))
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
/* What an allocation takes from its struct kmem_cache. */
struct cache_facts {
	u32 size;
	u32 object_size;
	u32 flags;
};

/* Where a 32-bit member of struct kmem_cache lies among those that are read. */
#define CACHE_FIELD(member) ((OFF_KMEM_CACHE_##member - CACHE_FIELDS) / sizeof(u32))

/* A call of the helper costs as much as a map look-up: one does where they lie close together. */
static __always_inline void read_cache(u64 cache, struct cache_facts *facts)
{
#if CACHE_FIELDS_BYTES <= 64
	u32 fields[CACHE_FIELDS_BYTES / sizeof(u32)] = {};

	bpf_probe_read_kernel(fields, sizeof(fields), (void *)(cache + CACHE_FIELDS));
	facts->size = fields[CACHE_FIELD(SIZE)];
	facts->object_size = fields[CACHE_FIELD(OBJECT_SIZE)];
	facts->flags = fields[CACHE_FIELD(FLAGS)];
#else
	facts->size = read_u32(cache + OFF_KMEM_CACHE_SIZE);
	facts->object_size = read_u32(cache + OFF_KMEM_CACHE_OBJECT_SIZE);
	facts->flags = read_u32(cache + OFF_KMEM_CACHE_FLAGS);
#endif
}

/* The same where the verifier gives a pointer of that type: three loads. */
static __always_inline void load_cache(u64 cache, struct cache_facts *facts)
{
	facts->size = *(u32 *)(cache + OFF_KMEM_CACHE_SIZE);
	facts->object_size = *(u32 *)(cache + OFF_KMEM_CACHE_OBJECT_SIZE);
	facts->flags = *(u32 *)(cache + OFF_KMEM_CACHE_FLAGS);
}

static __always_inline u32 cache_family(struct cache_facts *facts)
{
	return facts->flags & SLAB_RECLAIM_ACCOUNT_BIT ? FAMILY_RECLAIMABLE_CACHE
						       : FAMILY_KMEM_CACHE;
}

static __always_inline int book_kmem_cache_alloc(raw_tp *ctx, u32 copy, int typed)
{
	u64 ptr = ctx->args[ARG_KMEM_CACHE_ALLOC_PTR], cache = 0;
	struct cache_facts facts = {};

	if (seen_by_first(ctx, ptr, ALLOC_KMEM_CACHE_ALLOC, copy) ||
	    !concerns(ctx, PROGRAM_KMEM_CACHE_ALLOC, copy, ptr,
		      ctx->args[ARG_KMEM_CACHE_ALLOC_CALL_SITE]))
		return 0;
#ifdef ARG_KMEM_CACHE_ALLOC_S
	cache = ctx->args[ARG_KMEM_CACHE_ALLOC_S];
	if (typed)
		load_cache(cache, &facts);
	else
		read_cache(cache, &facts);
#endif
#ifdef ARG_KMEM_CACHE_ALLOC_BYTES_ALLOC
	facts.size = ctx->args[ARG_KMEM_CACHE_ALLOC_BYTES_ALLOC];
	facts.object_size = ctx->args[ARG_KMEM_CACHE_ALLOC_BYTES_REQ];
#endif
	book_allocation(ctx, PROGRAM_KMEM_CACHE_ALLOC, copy, cache_family(&facts), ptr, facts.size,
			facts.object_size, cache, ctx->args[ARG_KMEM_CACHE_ALLOC_CALL_SITE]);
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

/*
 * Where the verifier takes them: it refuses an argument that is a const void * before commit
 * 1271a40eeafa ("bpf: Allow access to const void pointer arguments in tracing programs", v6.16).
 */
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

	if (seen_by_first(ctx, ptr, ALLOC_KMEM_CACHE_ALLOC_NODE, copy) ||
	    !concerns(ctx, PROGRAM_KMEM_CACHE_ALLOC_NODE, copy, ptr,
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

/*
 * Before v5.19 the event comes when the object is free already, and another CPU
 * may have been given its address: there the function is hooked.
 */
#if FREE_EVENT_MAY_BE_LATE
KFUNC_PROBE(kmem_cache_free)
{
	book_one_free(argument_of(ctx, 1), 1);
	return 0;
}
#endif

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
