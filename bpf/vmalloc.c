/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vmalloc and its relatives, as vmap areas: the address is the one that
 * vmalloc() returns, the size includes the guard page. vmap, ioremap and
 * vm_map_ram come here too; user space tells them apart by the stack.
 */
#ifdef ARG_ALLOC_VMAP_AREA_ADDR
/* The tracepoints came with v6.2. */
int on_alloc_vmap_area(raw_tp *ctx)
{
	u64 address = ctx->args[ARG_ALLOC_VMAP_AREA_ADDR];
	u64 size = ctx->args[ARG_ALLOC_VMAP_AREA_SIZE];

	if (!(u32)ctx->args[ARG_ALLOC_VMAP_AREA_FAILED] &&
	    concerns(ctx, PROGRAM_ALLOC_VMAP_AREA, 1, address, 0))
		book_allocation(ctx, PROGRAM_ALLOC_VMAP_AREA, 1, FAMILY_VMAP_AREA, address, size,
				size, 0, 0);
	return 0;
}

int on_free_vmap_area_1(raw_tp *ctx)
{
	book_free(ctx, ctx->args[ARG_FREE_VMAP_AREA_NOFLUSH_VA_START], 0,
		  FREE_FREE_VMAP_AREA_NOFLUSH, 1);
	return 0;
}

int on_free_vmap_area_2(raw_tp *ctx)
{
	book_free(ctx, ctx->args[ARG_FREE_VMAP_AREA_NOFLUSH_VA_START], 0,
		  FREE_FREE_VMAP_AREA_NOFLUSH, 2);
	return 0;
}
#else
static __always_inline void book_vmap_area(void *ctx, u64 area)
{
	u64 start, end;

	if (!area || area >= (u64)-4095) /* NULL or ERR_PTR */
		return;
	start = read_u64(area + OFF_VMAP_AREA_VA_START);
	end = read_u64(area + OFF_VMAP_AREA_VA_END);
	if (concerns(ctx, PROGRAM_ALLOC_VMAP_AREA, 1, start, 0))
		book_allocation(ctx, PROGRAM_ALLOC_VMAP_AREA, 1, FAMILY_VMAP_AREA, start,
				end - start, end - start, 0, 0);
}

#ifdef PARAMETERS_alloc_vmap_area
KRETFUNC_PROBE(alloc_vmap_area)
{
	book_vmap_area(ctx, result_of(ctx, alloc_vmap_area));
	return 0;
}
#endif

KFUNC_PROBE(free_vmap_area_noflush)
{
	book_one_free(read_u64(argument_of(ctx, 0) + OFF_VMAP_AREA_VA_START), 1);
	return 0;
}

int probe_return_alloc_vmap_area(u64 *ctx)
{
	book_vmap_area(ctx, ctx[WORD_PT_REGS_RESULT]);
	return 0;
}

int probe_free_vmap_area_noflush(u64 *ctx)
{
	book_one_free(read_u64(ctx[WORD_PT_REGS_PARAMETER_1] + OFF_VMAP_AREA_VA_START), 1);
	return 0;
}
#endif
