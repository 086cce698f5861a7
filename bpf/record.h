/* SPDX-License-Identifier: GPL-2.0-only */
/* What the maps hold. User space derives its views from these declarations. */

/* Which family of functions gave the memory; read by kleak.capture.engine.declared. */
enum family {
	FAMILY_KMALLOC = 0,
	FAMILY_KMEM_CACHE = 1,
	FAMILY_VMAP_AREA = 2,
	FAMILY_PAGES = 3,
	FAMILY_PERCPU = 4,
	FAMILY_DMA = 5,
	FAMILY_RECLAIMABLE_CACHE = 6, /* of a slab cache that the kernel may shrink */
	FAMILY_DMA_POOL = 7,
};

/*
 * An outstanding allocation. Its key in the ledger is the address; of per-CPU
 * memory, which has none of its own, its cookie with the lowest bit set. Other
 * kinds that share addresses have other low bits: bpf/pages.c, bpf/dma_pool.c.
 */
struct allocation {
	u64 stack; /* key in stacks, or a call site: see sampling.h */
	u64 size; /* bytes that are held: shrinks where pages are freed piece by piece */
	u64 requested; /* bytes that were asked for */
	u64 time_ns; /* CLOCK_MONOTONIC */
	u64 pieces; /* of a block of up to 64 pages, those that were freed singly */
	u32 cycle;
	u32 family;
	u32 tgid;
	u16 cpu;
	u16 order; /* of a block of pages, as it was allocated */
	char comm[16];
};

struct stack {
	u32 depth;
	u32 busy; /* scratch copies only: in use by an event that was interrupted */
#if SAMPLE_EVERY
	u64 call_site; /* 0: the event gives none */
#endif
	u64 frames[STACK_DEPTH]; /* return addresses, innermost first */
};

/* Totals of a stack in a cycle. An object counts in the cycle that allocated it. */
struct total_key {
	u64 stack;
	u32 cycle;
	u32 family;
};

struct total {
	u64 allocated;
	u64 allocated_bytes;
	u64 allocated_requested;
	u64 freed;
	u64 freed_bytes;
	u64 freed_requested;
#if SAMPLE_EVERY
	u64 seen; /* of a call site: its events, those that were walked among them */
#endif
};

struct text_range {
	u64 start; /* 0: empty */
	u64 end; /* first address behind it */
};

/* Code that takes pages to make other memory of them, which is counted itself. */
struct page_owners {
	struct text_range ranges[MAX_PAGE_OWNERS];
};

/* A slab cache by its name; of kmalloc memory by its size alone. */
struct cache_name {
	u64 size;
	char name[32];
};

/* One load of a module in scope, as the kernel placed it. */
struct load {
	char name[MODULE_NAME_BYTES];
	struct text_range text;
	struct text_range init_text;
	u64 loaded_ns;
	u64 unloaded_ns; /* 0: still loaded */
	u32 cycle;
};

struct scope {
	u64 low; /* no address in scope lies below */
	u64 high; /* nor at or above */
	struct text_range symbols; /* what the bitmap of symbols covers */
	u32 counting; /* allocations count; frees always do */
	u32 cycle; /* of allocations made now */
	u32 loads; /* of modules in scope, so far */
	u32 everything; /* any address between low and high is in scope */
	u32 tracer_tgid;
	u32 tracer_level; /* of its pid namespace: 0 is the first */
	u32 ignore_tracer; /* what the tracer allocates does not count */
	u32 by_process; /* only allocations of the process tree that is followed count */
};

/* Everything that may make a result wrong, or shows that it is right. */
enum counter {
	COUNT_ALLOCATED, /* entered into the ledger */
	COUNT_FREED, /* taken out of it */
	COUNT_REPAIRED_FREES, /* taken out by the second copy: the first was missed */
	COUNT_REPAIRED_ALLOCATIONS, /* entered by the second copy: the same */
	COUNT_DOUBLE_EVENTS, /* two events for one allocation: the first was undone */
	COUNT_REUSED_ADDRESSES, /* allocated while in the ledger: a free went unseen */
	COUNT_FOREIGN_FREES, /* the scope freed what it was not seen to allocate */
	COUNT_LEDGER_FULL,
	COUNT_STACKS_FULL,
	COUNT_TOTALS_FULL,
	COUNT_NO_STACK,
	COUNT_NESTED, /* an event interrupted another of its kind in mid-walk */
	COUNT_DELETE_REFUSED,
	COUNT_LOADS_FULL,
	COUNT_WALKS, /* stack walks: the cost, not a loss */
	COUNT_BULK_BEYOND, /* objects of a bulk call beyond those that are read */
	COUNT_OWNED_PAGES, /* pages that became memory which is counted itself */
	COUNT_LOADS_OUTSIDE, /* two modules loaded at once wrote over each other's scope */
	COUNT_KINDS,
};
