/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A stack walk costs some twenty times the rest of an event. This rules out
 * most of them: a frame in scope leaves its return address on the stack, so
 * if no word between ctx (which lies on the stack) and the end of the task's
 * stack is an address in scope, no frame is. A stale word only costs a walk.
 *
 * Each word is held against the bounds of the scope. Those within are looked up
 * then: code out of scope lies between the functions of most scopes.
 *
 * On another stack (interrupt, exception), which the unwinder would follow
 * into the task's, nothing is ruled out.
 */
#if defined(THREAD_SIZE_BYTES) && defined(OFF_TASK_STRUCT_STACK)
#define WORDS_READ 256 /* most stacks with one call of the helper, which costs more than 30 words */
#define BYTES_READ (WORDS_READ * sizeof(u64))
#define WORDS_COMPARED 16
/* Beyond so many the walk decides: each takes the verifier 1,200 instructions. */
#define BLOCKS_READ 4
/*
 * Whether words within the bounds are looked up. Of modules alone none is: their bounds fit. Nor of
 * more than 8: the verifier allows a path 8,192 branches.
 */
#define LOOKS_UP (SYMBOL_WORDS && MAX_MODULES <= 8)

struct stack_words {
	u64 here;
	u64 bottom;
	u64 words[WORDS_READ];
};

BPF_PERCPU_ARRAY(stack_words, struct stack_words, SCRATCH_STACKS);

static __always_inline int any_within(u64 *words, u64 low, u64 size)
{
#pragma unroll
	for (u32 i = 0; i < WORDS_COMPARED; i++) {
		if (words[i] - low < size)
			return 1;
	}
	return 0;
}

/* Whether a word read lies within the bounds, or one behind them up to a multiple of 16. */
static __always_inline int any_word_within(struct stack_words *read, u64 number, u64 low, u64 size)
{
	for (u64 first = 0; first < WORDS_READ; first += WORDS_COMPARED) {
		keep_bound(first);
		if (first >= number)
			return 0;
		if (any_within(&read->words[first], low, size))
			return 1;
	}
	return 0;
}

/* Whether one is an address in scope: most that lie within the bounds are of what lies between. */
static __always_inline int any_word_in_scope(struct stack_words *read, u64 number,
					     struct scope *scope, u64 low, u64 size)
{
	for (u64 first = 0; first < WORDS_READ; first += WORDS_COMPARED) {
		u64 *words;

		keep_bound(first);
		if (first >= number)
			return 0;
		words = &read->words[first];
		if (!any_within(words, low, size)) /* most are not, and this is twice as fast */
			continue;
#pragma unroll
		for (u32 i = 0; i < WORDS_COMPARED; i++) {
			if (words[i] - low < size &&
			    (in_symbols(scope, words[i] - 1) || in_module_slots(words[i] - 1)))
				return 1;
		}
	}
	return 0;
}

/* Where the stack of the current task begins: task_struct.stack. */
static __always_inline void find_bottom(struct stack_words *read)
{
#ifdef HAS_CURRENT_TASK_BTF
	/* Typed, so a plain load does. It may be typed itself: memory makes it a number. */
	*(volatile u64 *)&read->bottom =
		*(u64 *)((u64)bpf_get_current_task_btf() + OFF_TASK_STRUCT_STACK);
#else
	read->bottom = read_u64(bpf_get_current_task() + OFF_TASK_STRUCT_STACK);
#endif
}

static __always_inline int rules_out_scope(void *ctx, u32 program, struct scope *scope)
{
	struct stack_words *read = stack_words.lookup(&program);
	u64 low = scope->low + 1; /* return addresses: see in_scope() */
	u64 size = scope->high - scope->low;
	u64 left, at, bytes;

	if (!read)
		return 0;
	/* A pointer to the context turns into a number by way of memory. */
	*(volatile u64 *)&read->here = (u64)ctx;
	at = *(volatile u64 *)&read->here;
	find_bottom(read);
	/* On top lie the registers of user space, or of nobody. */
	left = *(volatile u64 *)&read->bottom + THREAD_SIZE_BYTES - SIZE_PT_REGS - at;
	for (u32 block = 0; block < BLOCKS_READ; block++) {
		keep_bound(block);
		if (left > THREAD_SIZE_BYTES)
			return 0;
		bytes = left < BYTES_READ ? left : BYTES_READ;
		if (bpf_probe_read_kernel(read->words, bytes, (void *)at))
			return 0;
		/* Looked up in the first block alone: 22,000 of the verifier's instructions. */
		if (block == 0 && LOOKS_UP
			    ? any_word_in_scope(read, bytes / sizeof(u64), scope, low, size)
			    : any_word_within(read, bytes / sizeof(u64), low, size))
			return 0;
		if (left <= BYTES_READ)
			return 1;
		left -= BYTES_READ;
		at += BYTES_READ;
	}
	return 0;
}
#else
static __always_inline int rules_out_scope(void *ctx, u32 program, struct scope *scope)
{
	return 0;
}
#endif
