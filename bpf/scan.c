/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The search for pointers: attached to nothing, run by kleak.capture.pointers for a few blocks of
 * memory at a time. It only says where a pointer to one of the wanted pages may be; user space
 * looks there again. Addresses are told and taken as their complements, so that no search finds
 * them in kleak's own memory.
 *
 * A text of its own: it needs nothing of the tracer's programs.
 */
#include <uapi/linux/bpf.h>

/* What is read at once, whatever size pages have: more than 32 kB no per-CPU map gives. */
#define BLOCK_BYTES 4096
#define BLOCK_WORDS (BLOCK_BYTES / 8)
/* Blocks of one run. Other tasks of this CPU wait for as long; the verifier walks each. */
#define BLOCKS_OF_A_RUN 8
#define GROUP_WORDS 16
/* A bit for each page, by the low bits of its number: a power of two. */
#define FILTER_WORDS 32768
#define MAX_GROUPS 4096
#define PAGE_SHIFT_OF_FILTER 12
#define PHYSICAL_BITS 0x000fffffffffffffULL

struct block {
	u64 words[BLOCK_WORDS];
};

struct filter {
	u64 bits[FILTER_WORDS];
};

struct group {
	u64 at; /* complement of its address */
	u64 words; /* a bit for each word that may be a pointer */
};

struct groups {
	u64 count; /* since user space set it to 0 */
	u64 unreadable; /* blocks */
	struct group found[MAX_GROUPS];
};

/* Set by user space. Addresses are what they are: they are the start of large regions. */
struct layout {
	u64 direct; /* where memory is mapped */
	u64 physical_end; /* behind the last byte of memory */
	u64 memmap; /* where the array of struct page begins */
	u64 memmap_bytes;
};

struct places {
	u64 task; /* that runs the program: complement */
	u64 copy; /* this CPU's block, as it is */
};

BPF_PERCPU_ARRAY(block_copy, struct block, 1);
BPF_F_TABLE("array", u32, struct block, window, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct filter, wanted_pages, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct groups, found_groups, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct layout, memory_layout, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct places, own_places, 1, BPF_F_MMAPABLE);

/* 1 where a word may be a pointer to a wanted page, its physical address, or its struct page.
 * Without a branch: the verifier follows few of them.
 */
static __always_inline u64 may_point(u64 word, struct filter *wanted, u64 direct, u64 end,
				     u64 memmap, u64 memmap_bytes)
{
	u64 kernel = ((word >> 56) + 1) >> 8;
	u64 low = word & PHYSICAL_BITS;
	u64 physical = (low - end) >> 63 & (kernel ^ 1);
	u64 into = word - memmap;
	u64 of_struct_page = ((into - memmap_bytes) & ~into) >> 63;
	u64 address = (word & -kernel) | ((low + direct) & (kernel - 1));
	u64 page;

	/* One struct page is as much as a page else: they lie close together. clang would branch. */
	asm volatile("" : "+r"(of_struct_page));
	page = address >> (PAGE_SHIFT_OF_FILTER - 6 * of_struct_page);
	return (kernel | physical) & wanted->bits[(page >> 6) & (FILTER_WORDS - 1)] >> (page & 63);
}

/* Arguments: complement of the address, number of blocks. */
int scan_memory(struct bpf_raw_tracepoint_args *ctx)
{
	u32 zero = 0;
	struct block *copy = block_copy.lookup(&zero);
	struct filter *wanted = wanted_pages.lookup(&zero);
	struct groups *found = found_groups.lookup(&zero);
	struct layout *layout = memory_layout.lookup(&zero);
	u64 at = ~ctx->args[0], blocks = ctx->args[1], count, bad, unreadable = 0;
	u64 direct, end, memmap, memmap_bytes;
	struct group *group;

	if (!copy || !wanted || !found || !layout)
		return 0;
	direct = layout->direct;
	end = layout->physical_end;
	memmap = layout->memmap;
	memmap_bytes = layout->memmap_bytes;
	count = found->count;
	for (int n = 0; n < BLOCKS_OF_A_RUN; n++, at += BLOCK_BYTES) {
		if (n >= blocks)
			break;
		/* The helper fills a block that it cannot read with zeros. */
		bad = bpf_probe_read_kernel(copy, BLOCK_BYTES, (void *)at);
		unreadable += bad >> 63;
		for (int i = 0; i < BLOCK_WORDS; i += GROUP_WORDS) {
			u64 any = 0, negative;

#pragma unroll
			for (int j = 0; j < GROUP_WORDS; j++) {
				any |= may_point(copy->words[i + j], wanted, direct, end, memmap,
						 memmap_bytes)
				       << j;
				/* One after the other: all at once they do not fit the stack. */
				asm volatile("" : "+r"(any) : : "memory");
			}
			/* Without a branch; what is no find is overwritten by the next. */
			group = &found->found[count & (MAX_GROUPS - 1)];
			group->at = ~(at + i * 8);
			group->words = any;
			negative = -any;
			asm volatile("" : "+r"(negative));
			count += (any | negative) >> 63;
		}
	}
	found->count = count;
	found->unreadable += unreadable;
	return 0;
}

/* Arguments: complement of the address, bytes. Returns through the window; 0 where it is read. */
int read_memory(struct bpf_raw_tracepoint_args *ctx)
{
	u32 zero = 0;
	struct block *block = window.lookup(&zero);
	u64 at = ~ctx->args[0], size = ctx->args[1];

	if (!block || size > BLOCK_BYTES)
		return 1;
	return bpf_probe_read_kernel(block, size, (void *)at) ? 1 : 0;
}

int tell_places(struct bpf_raw_tracepoint_args *ctx)
{
	u32 zero = 0;
	struct block *copy = block_copy.lookup(&zero);
	struct places *places = own_places.lookup(&zero);

	if (!copy || !places)
		return 0;
	places->task = ~bpf_get_current_task();
	places->copy = (u64)copy; /* the verifier lets nobody reckon with it */
	return 0;
}
