/* SPDX-License-Identifier: GPL-2.0-only */
BPF_PERCPU_ARRAY(counters, u64, COUNT_KINDS);

static __always_inline void count_many(u32 what, u64 number)
{
	u64 *n = counters.lookup(&what);

	if (n)
		*n += number;
}

static __always_inline void count(u32 what)
{
	count_many(what, 1);
}
