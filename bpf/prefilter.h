/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A stack walk costs some twenty times the rest of an event. This rules out
 * most of them: a frame in scope leaves its return address on the stack, so
 * if no word between ctx (which lies on the stack) and the end of the task's
 * stack is an address in scope, no frame is. A stale word only costs a walk.
 *
 * On another stack (interrupt, exception), which the unwinder would follow
 * into the task's, nothing is ruled out.
 */
#if defined(THREAD_SIZE_BYTES) && defined(OFF_TASK_STRUCT_STACK)
#define WORDS_READ 64
#define BYTES_READ (WORDS_READ * sizeof(u64))

struct stack_words {
	u64 here;
	u64 words[WORDS_READ];
};

BPF_PERCPU_ARRAY(stack_words, struct stack_words, SCRATCH_STACKS);

static __always_inline int any_word_in(struct stack_words *read, u64 low, u64 size)
{
	for (u32 i = 0; i < WORDS_READ; i++) {
		if (read->words[i] - low < size)
			return 1;
	}
	return 0;
}

static __always_inline int rules_out_scope(void *ctx, u32 program, struct scope *scope)
{
	struct stack_words *read = stack_words.lookup(&program);
	u64 low = scope->low + 1; /* return addresses: see in_scope() */
	u64 size = scope->high - scope->low;
	u64 bottom = 0, left, at, task;
	u32 partial, blocks;

	if (!read)
		return 0;
	/* A pointer to the context turns into a number by way of memory. */
	*(volatile u64 *)&read->here = (u64)ctx;
	at = *(volatile u64 *)&read->here;
	task = bpf_get_current_task();
	if (bpf_probe_read_kernel(&bottom, sizeof(bottom), (void *)(task + OFF_TASK_STRUCT_STACK)))
		return 0;
	left = bottom + THREAD_SIZE_BYTES - at;
	if (left > THREAD_SIZE_BYTES)
		return 0;
	partial = left % BYTES_READ;
	blocks = left / BYTES_READ;
	if (bpf_probe_read_kernel(read->words, partial, (void *)at) || any_word_in(read, low, size))
		return 0;
	at += partial;
	for (u32 block = 0; block < THREAD_SIZE_BYTES / BYTES_READ; block++) {
		keep_bound(block);
		if (block >= blocks)
			break;
		if (bpf_probe_read_kernel(read->words, BYTES_READ, (void *)at) ||
		    any_word_in(read, low, size))
			return 0;
		at += BYTES_READ;
	}
	return 1;
}
#else
static __always_inline int rules_out_scope(void *ctx, u32 program, struct scope *scope)
{
	return 0;
}
#endif
