/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Objects of DMA pools: mm/dmapool.c. The first one of a block has the address
 * of the block, which dma.c books: so the key of an object has the two lowest
 * bits set, which no other key has.
 */
#if defined(OFF_DMA_POOL_SIZE) && defined(PARAMETERS_dma_pool_alloc)
static __always_inline u64 dma_pool_key(u64 address)
{
	return address | 3;
}

KRETFUNC_PROBE(dma_pool_alloc)
{
	u64 size = read_u32(argument_of(ctx, 0) + OFF_DMA_POOL_SIZE);
	u64 object = result_of(ctx, dma_pool_alloc), key = dma_pool_key(object);

	if (object && concerns(ctx, PROGRAM_DMA_POOL_ALLOC, 1, key, 0))
		book_allocation(ctx, PROGRAM_DMA_POOL_ALLOC, 1, FAMILY_DMA_POOL, key, size, size, 0,
				0);
	return 0;
}

KFUNC_PROBE(dma_pool_free)
{
	book_one_free(dma_pool_key(argument_of(ctx, 1)), 1);
	return 0;
}
#endif
