/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Heads of socket buffers that the network core puts into its per-CPU cache
 * have no event. napi_skb_cache_put() does it, where the compiler left it a
 * function; elsewhere its callers are hooked.
 */
KFUNC_PROBE(napi_skb_cache_put)
{
	book_one_free(argument_of(ctx, 0), 1);
	return 0;
}

KFUNC_PROBE(__kfree_skb_defer)
{
	book_one_free(argument_of(ctx, 0), 1);
	return 0;
}

KFUNC_PROBE(napi_skb_free_stolen_head)
{
	book_one_free(argument_of(ctx, 0), 1);
	return 0;
}

int probe_skb_head(u64 *ctx)
{
	book_one_free(ctx[WORD_PT_REGS_PARAMETER_1], 1);
	return 0;
}

/*
 * napi_consume_skb() tells by its event that nobody holds the buffer any more.
 * Of a pair for cloning (fclone) only one may have gone, and such a pair never
 * enters the cache: its size tells.
 */
#ifdef ARG_CONSUME_SKB_SKB
static __always_inline int book_consumed(raw_tp *ctx, u32 copy)
{
	u64 skb = ctx->args[ARG_CONSUME_SKB_SKB];
	struct allocation *found = find_outstanding(skb);

	seen_by_first(ctx, skb, FREE_CONSUME_SKB, copy);
	if (found && found->requested < 2 * SIZE_SK_BUFF)
		book_one_free(skb, copy);
	return 0;
}

int on_consume_skb_1(raw_tp *ctx)
{
	return book_consumed(ctx, 1);
}

int on_consume_skb_2(raw_tp *ctx)
{
	return book_consumed(ctx, 2);
}
#endif
