/* SPDX-License-Identifier: GPL-2.0-only */
/* What the maps hold. User space derives its views from these declarations. */

/* Which family of functions gave the memory; kleak.tracer.FAMILIES names them. */
enum family {
	FAMILY_KMALLOC = 0,
	FAMILY_KMEM_CACHE = 1,
	FAMILY_VMAP_AREA = 2,
};

/* An outstanding allocation. Its key in the ledger is the address. */
struct allocation {
	u64 stack; /* key in stacks */
	u64 size; /* bytes that are held */
	u64 requested; /* bytes that were asked for */
	u64 time_ns; /* CLOCK_MONOTONIC */
	u32 cycle;
	u32 family;
	u32 tgid;
	u32 cpu;
	char comm[16];
};

struct stack {
	u32 depth;
	u32 busy; /* scratch copies only: in use by an event that was interrupted */
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
};

struct text_range {
	u64 start; /* 0: empty */
	u64 end; /* first address behind it */
};

/* One load of a module in scope, as the kernel placed it. */
struct load {
	char name[MODULE_NAME_BYTES];
	struct text_range text;
	struct text_range init_text;
	u64 loaded_ns;
	u64 unloaded_ns; /* 0: still loaded */
	u32 cycle;
	u32 slot;
};

struct scope {
	u64 low; /* no address in scope lies below */
	u64 high; /* nor at or above */
	struct text_range symbols; /* what the bitmap of symbols covers */
	u32 counting; /* allocations count; frees always do */
	u32 cycle; /* of allocations made now */
	u32 loads; /* of modules in scope, so far */
	u32 everything; /* any address between low and high is in scope */
	u32 ignored_tgid; /* the tracer itself */
	u32 unused;
};

/* Everything that may make a result wrong, or shows that it is right. */
enum counter {
	COUNT_ALLOCATED, /* entered into the ledger */
	COUNT_FREED, /* taken out of it */
	COUNT_REPAIRED_FREES, /* taken out by the second copy: the first was missed */
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
	COUNT_KINDS,
};
