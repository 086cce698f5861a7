/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dma_alloc_coherent() and its relatives. Below it lie pages, or an area that
 * is mapped, at the same address: that record is undone for this one.
 */
#ifdef ARG_DMA_ALLOC_VIRT_ADDR
/* The tracepoints came with commit 038eb433dc14 ("dma-mapping: add tracing for dma-mapping API calls", v6.12). */
int on_dma_alloc(raw_tp *ctx)
{
	u64 address = ctx->args[ARG_DMA_ALLOC_VIRT_ADDR];
	u64 size = ctx->args[ARG_DMA_ALLOC_SIZE];

	if (concerns(ctx, PROGRAM_DMA_ALLOC, 1, address, 0))
		book_allocation(ctx, PROGRAM_DMA_ALLOC, 1, FAMILY_DMA, address, size, size, 0, 0);
	return 0;
}

int on_dma_free_1(raw_tp *ctx)
{
	book_free(ctx, ctx->args[ARG_DMA_FREE_VIRT_ADDR], 0, FREE_DMA_FREE, 1);
	return 0;
}

int on_dma_free_2(raw_tp *ctx)
{
	book_free(ctx, ctx->args[ARG_DMA_FREE_VIRT_ADDR], 0, FREE_DMA_FREE, 2);
	return 0;
}
#elif defined(PARAMETERS_dma_alloc_attrs)
KRETFUNC_PROBE(dma_alloc_attrs)
{
	u64 address = result_of(ctx, dma_alloc_attrs), size = argument_of(ctx, 1);

	if (concerns(ctx, PROGRAM_DMA_ALLOC, 1, address, 0))
		book_allocation(ctx, PROGRAM_DMA_ALLOC, 1, FAMILY_DMA, address, size, size, 0, 0);
	return 0;
}

KFUNC_PROBE(dma_free_attrs)
{
	book_one_free(argument_of(ctx, 2), 1);
	return 0;
}
#endif
