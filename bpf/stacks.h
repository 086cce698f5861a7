/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Stacks, interned by a 64-bit hash of their frames in an ordinary hash map:
 * BPF_MAP_TYPE_STACK_TRACE drops a stack whose bucket is taken.
 */
BPF_TABLE("hash", u64, struct stack, stacks, MAX_STACKS);

/*
 * One scratch stack a program on each CPU. A program cannot interrupt itself
 * where the kernel guards it (commit 05b24ff9b2cf "bpf: Prevent bpf program
 * recursion for raw tracepoint probes", v6.1); elsewhere `busy` does.
 */
BPF_PERCPU_ARRAY(scratch_stacks, struct stack, SCRATCH_STACKS);

static __always_inline struct stack *walk(void *ctx, u32 program)
{
	struct stack *stack = scratch_stacks.lookup(&program);
	long bytes;

	if (!stack)
		return 0;
	if (stack->busy) {
		count(COUNT_NESTED);
		return 0;
	}
	stack->busy = 1;
	count(COUNT_WALKS);
	bytes = bpf_get_stack(ctx, stack->frames, sizeof(stack->frames), 0);
	if (bytes <= 0) {
		count(COUNT_NO_STACK);
		stack->busy = 0;
		return 0;
	}
	stack->depth = bytes / sizeof(u64);
	return stack;
}

static __always_inline void release(struct stack *stack)
{
	stack->busy = 0;
}

static __always_inline int touches_scope(struct stack *stack, struct scope *scope)
{
	for (u32 i = 0; i < STACK_DEPTH; i++) {
		keep_bound(i);
		if (i >= stack->depth)
			return 0;
		if (in_scope(scope, stack->frames[i]))
			return 1;
	}
	return 0;
}

BPF_ARRAY(page_owners, struct page_owners, 1);

/* Whether an allocator took these pages to make its own memory of them. */
static __always_inline int is_owned(struct stack *stack)
{
	u32 zero = 0;
	struct page_owners *owners = page_owners.lookup(&zero);

	if (!owners)
		return 0;
	for (u32 i = 0; i < PAGE_OWNER_DEPTH && i < STACK_DEPTH; i++) {
		keep_bound(i);
		if (i >= stack->depth)
			return 0;
		for (u32 owner = 0; owner < MAX_PAGE_OWNERS; owner++) {
			if (contains(&owners->ranges[owner], stack->frames[i] - 1))
				return 1;
		}
	}
	return 0;
}

/* Returns the key of the stack in stacks, or 0 if there was no room. */
static __always_inline u64 intern(struct stack *stack)
{
	u64 hash = stack->depth;

#if SAMPLE_EVERY
	hash ^= stack->call_site * 0x9e3779b97f4a7c15ULL;
#endif
	for (u32 i = 0; i < STACK_DEPTH; i++) {
		keep_bound(i);
		if (i >= stack->depth)
			break;
		hash = (hash ^ stack->frames[i]) * 0x9e3779b97f4a7c15ULL;
		hash ^= hash >> 32;
	}
#if SAMPLE_EVERY
	hash &= ~(1ULL << 63);
#endif
	if (!hash)
		hash = 1;
	if (stacks.lookup(&hash))
		return hash;
	if (stacks.update(&hash, stack)) {
		count(COUNT_STACKS_FULL);
		return 0;
	}
	return hash;
}
