/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * In a scope of everything a stack walk for each allocation is most of the cost. So only some are
 * walked; each of the others is booked as exactly, on the total of its call site, whose key is
 * the call site itself. Keys of stacks have the highest bit clear, addresses of code have it set.
 */
#if SAMPLE_EVERY
/* Of 2^32 allocations of a call site so many are walked; 0: one in SAMPLE_EVERY. By its hash. */
BPF_ARRAY(shares, u32, SHARE_SLOTS);

#define DEFAULT_SHARE (0xffffffff / SAMPLE_EVERY)

/*
 * Whether to walk the stack of an allocation, total being that of its call site. Multiples of the
 * golden ratio spread the walks: what allocates in turn from several stacks would always show
 * the same one to every n-th walk.
 */
static __always_inline int is_walked(u64 call_site, struct total *total)
{
	u32 slot = call_site * 0x9e3779b97f4a7c15ULL >> 52 & (SHARE_SLOTS - 1);
	u32 seen = total->seen++;
	u32 *share = shares.lookup(&slot);

	if (seen < FIRST_WALKS || !share)
		return 1;
	return seen * 0x9e3779b1U < (*share ? *share : DEFAULT_SHARE);
}
#endif
