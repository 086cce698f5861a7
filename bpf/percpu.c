/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Per-CPU memory: include/trace/events/percpu.h. What alloc_percpu() returns is
 * a cookie, a number that may equal an address of another allocator but for
 * its lowest bit, which every allocator leaves 0.
 */
#ifdef ARG_PERCPU_ALLOC_PERCPU_PTR
static __always_inline u64 percpu_key(u64 cookie)
{
	return cookie | 1; /* NULL has no events */
}

int on_percpu_alloc(raw_tp *ctx)
{
	u64 key = percpu_key(ctx->args[ARG_PERCPU_ALLOC_PERCPU_PTR]);
	u64 requested = ctx->args[ARG_PERCPU_ALLOC_PERCPU_SIZE];
#ifdef ARG_PERCPU_ALLOC_PERCPU_BYTES_ALLOC
	u64 size = ctx->args[ARG_PERCPU_ALLOC_PERCPU_BYTES_ALLOC];
#else
	u64 size = requested * POSSIBLE_CPUS;
#endif
	/*
	 * The event's call site is no use: whoever called it is in __alloc_percpu() before commit
	 * 24e44cc22aa3 ("mm: percpu: enable per-cpu allocation tagging"), v6.10.
	 */
	if (concerns(ctx, PROGRAM_PERCPU_ALLOC, 1, key, 0))
		book_allocation(ctx, PROGRAM_PERCPU_ALLOC, 1, FAMILY_PERCPU, key, size,
				requested * POSSIBLE_CPUS, 0, 0);
	return 0;
}

int on_percpu_free_1(raw_tp *ctx)
{
	book_free(ctx, percpu_key(ctx->args[ARG_PERCPU_FREE_PERCPU_PTR]), 0,
		  FREE_PERCPU_FREE_PERCPU, 1);
	return 0;
}

int on_percpu_free_2(raw_tp *ctx)
{
	book_free(ctx, percpu_key(ctx->args[ARG_PERCPU_FREE_PERCPU_PTR]), 0,
		  FREE_PERCPU_FREE_PERCPU, 2);
	return 0;
}
#endif
