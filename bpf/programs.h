/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A number for each program that walks stacks: its place in the scratch maps.
 * The second copy of a program is the next number.
 */
enum program {
	PROGRAM_KMALLOC,
	PROGRAM_KMALLOC_2,
	PROGRAM_KMALLOC_NODE,
	PROGRAM_KMALLOC_NODE_2,
	PROGRAM_KMEM_CACHE_ALLOC,
	PROGRAM_KMEM_CACHE_ALLOC_2,
	PROGRAM_KMEM_CACHE_ALLOC_NODE,
	PROGRAM_KMEM_CACHE_ALLOC_NODE_2,
	PROGRAM_MM_PAGE_ALLOC,
	PROGRAM_MM_PAGE_ALLOC_2,
	PROGRAM_ALLOC_VMAP_AREA,
	PROGRAM_KMEM_CACHE_ALLOC_BULK,
	PROGRAM_KMALLOC_NOLOCK,
	PROGRAM_ALLOC_PAGES_BULK,
	PROGRAM_PERCPU_ALLOC,
	PROGRAM_DMA_ALLOC,
	PROGRAM_DMA_POOL_ALLOC,
	SCRATCH_STACKS,
};

/*
 * The tracepoints whose programs have two copies that tell by marks what the first one missed:
 * each is called by the event after its first word. The copies on a function are the same twice.
 */
enum copied_event {
	FREE_KFREE,
	FREE_KMEM_CACHE_FREE,
	FREE_FREE_VMAP_AREA_NOFLUSH,
	FREE_CONSUME_SKB,
	FREE_MM_PAGE_FREE,
	FREE_PERCPU_FREE_PERCPU,
	FREE_DMA_FREE,
	ALLOC_KMALLOC,
	ALLOC_KMALLOC_NODE,
	ALLOC_KMEM_CACHE_ALLOC,
	ALLOC_KMEM_CACHE_ALLOC_NODE,
	ALLOC_MM_PAGE_ALLOC,
	COPIED_EVENTS,
};

/*
 * Keeps clang from merging the two bounds of a loop into one that the verifier
 * cannot follow, and from unrolling the loop.
 */
#define keep_bound(i) asm volatile("" : "+r"(i))

typedef struct bpf_raw_tracepoint_args raw_tp;

static __always_inline u64 read_u64(u64 address)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
	return value;
}

static __always_inline u32 read_u32(u64 address)
{
	u32 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
	return value;
}

/*
 * The n-th argument of a function that fentry or fexit hooked. The verifier
 * lets no program load a pointer to a pointer from the context (up to v6.18 at
 * least), but a helper, there since v5.17, gives any argument as a number.
 * Before, the context is read as any memory is: a word for each argument, in
 * order, and the result behind them.
 */
static __always_inline u64 argument_of(void *ctx, u32 n)
{
#if HAS_GET_FUNC_ARG
	u64 value = 0;

	bpf_get_func_arg(ctx, n, &value);
	return value;
#else
	return read_u64((u64)ctx + n * sizeof(u64));
#endif
}

/* What a function that fexit hooked returns. Above a narrow result the register holds anything. */
static __always_inline u64 read_result(void *ctx, u32 parameters, u32 bytes)
{
	u64 value = 0;

#if HAS_GET_FUNC_ARG
	bpf_get_func_ret(ctx, &value);
#else
	value = argument_of(ctx, parameters);
#endif
	return bytes < sizeof(value) ? value & ((1ULL << (bytes * 8)) - 1) : value;
}

/*
 * For each function that the plan hooks by fexit there are PARAMETERS_<function> and
 * RESULT_BYTES_<function>; of others the programs are left out.
 */
#define result_of(ctx, function) read_result(ctx, PARAMETERS_##function, RESULT_BYTES_##function)
