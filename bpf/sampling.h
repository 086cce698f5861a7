/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where the call site says whether an allocation is in scope (a scope of everything, or own calls),
 * a stack walk for each is most of the cost. So only some are walked; each of the others is booked
 * as exactly, on the total of its call site, whose key is the call site itself. Keys of stacks have
 * the highest bit clear, addresses of code have it set.
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

/*
 * The time of an allocation, CLOCK_MONOTONIC. Reading it is an eighth of the cost of one that is not
 * walked. So where stacks are sampled it is read once in a tick on each CPU, and what follows in the
 * same tick is a nanosecond younger each: a structure is older than what it points to, if both were
 * made on one CPU.
 */
#if SAMPLE_EVERY && defined(TICK_NS)
#define CLOCK_STEP_NS TICK_NS
struct tick {
	u64 jiffies;
	u64 time_ns;
};

BPF_PERCPU_ARRAY(ticks, struct tick, 1);

static __always_inline u64 allocation_time(void)
{
	u64 jiffies = bpf_jiffies64(), now; /* no call: the verifier makes it a load */
	u32 zero = 0;
	struct tick *tick = ticks.lookup(&zero);

	if (tick && tick->jiffies == jiffies)
		return ++tick->time_ns;
	now = bpf_ktime_get_ns();
	if (tick) {
		/* In this order: an interrupt between the two reads the clock itself. */
		tick->time_ns = now;
		asm volatile("" ::: "memory");
		tick->jiffies = jiffies;
	}
	return now;
}
#else
#define CLOCK_STEP_NS 0
static __always_inline u64 allocation_time(void)
{
	return bpf_ktime_get_ns();
}
#endif
