/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * kfree_rcu() and its relatives end in kvfree_call_rcu(), and the batches that
 * it collects are freed with no event. For a leak tracer the object is gone
 * when it is handed over, as it is for kmemleak.
 *
 * The second argument is the object, or, before commit 04a522b7da3d ("rcu:
 * Refactor kvfree_call_rcu() and high-level helpers") and for the two-argument
 * form, the offset of its rcu_head; offsets are below 4096.
 */
static __always_inline void book_kvfree_call_rcu(u64 head, u64 object)
{
	book_one_free(object < 4096 ? head - object : object, 1);
}

/* Loaded twice for its two copies: bcc takes the function to hook from the name. */
KFUNC_PROBE(kvfree_call_rcu)
{
	book_kvfree_call_rcu(argument_of(ctx, 0), argument_of(ctx, 1));
	return 0;
}

/* kfree_rcu_nolock(), for any context, goes another way. */
#ifdef HAS_KFREE_CALL_RCU_NOLOCK
KFUNC_PROBE(kfree_call_rcu_nolock)
{
	book_kvfree_call_rcu(argument_of(ctx, 0), argument_of(ctx, 1));
	return 0;
}
#endif

int probe_kvfree_call_rcu(u64 *ctx)
{
	book_kvfree_call_rcu(ctx[WORD_PT_REGS_PARAMETER_1], ctx[WORD_PT_REGS_PARAMETER_2]);
	return 0;
}
