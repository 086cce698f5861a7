/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The ledger: every outstanding allocation in scope by address, and totals by
 * stack and cycle. Hooks call book_allocation() and book_free(); nothing else
 * writes to these maps.
 */
BPF_TABLE("hash", u64, struct allocation, outstanding, MAX_OUTSTANDING);
BPF_TABLE("hash", struct total_key, struct total, totals, MAX_TOTALS);

/*
 * A counter for each of many address hashes, above 0 while an address with
 * that hash is in the ledger: most events are of addresses that are not, and
 * learn so from one array element.
 */
BPF_ARRAY(ledger_filter, u32, FILTER_SLOTS);

static __always_inline u32 *filter_slot(u64 address)
{
	/* Slab objects are 8-aligned; the multiplication spreads the rest. */
	u32 slot = ((address >> 3) * 0x9e3779b97f4a7c15ULL) >> 40 & (FILTER_SLOTS - 1);

	return ledger_filter.lookup(&slot);
}

static __always_inline struct allocation *find_outstanding(u64 address)
{
	u32 *slot = filter_slot(address);

	if (!slot || !*slot)
		return 0;
	return outstanding.lookup(&address);
}

/*
 * Takes an address out of the ledger. Returns 1 with a copy of its record if
 * this call did it: of two that race for one address, one wins.
 */
static __always_inline int strike(u64 address, struct allocation *copy)
{
	struct allocation *found = find_outstanding(address);
	u32 *slot;
	int err;

	if (!found)
		return 0;
	/* Copied first: a deleted element may be given out again at once. */
	*copy = *found;
	err = outstanding.delete(&address);
	if (err) {
		if (err != -ENOENT)
			count(COUNT_DELETE_REFUSED);
		return 0;
	}
	slot = filter_slot(address);
	if (slot)
		__sync_fetch_and_add(slot, -1);
	return 1;
}

static __always_inline struct total *total_of(struct allocation *allocation)
{
	struct total_key key = {
		.stack = allocation->stack,
		.cycle = allocation->cycle,
		.family = allocation->family,
	};
	struct total *total = totals.lookup(&key);
	struct total none = {};

	if (total)
		return total;
	totals.insert(&key, &none);
	return totals.lookup(&key);
}

static __always_inline void total_allocated(struct total *total, struct allocation *allocation,
					    int sign)
{
	__sync_fetch_and_add(&total->allocated, sign);
	__sync_fetch_and_add(&total->allocated_bytes, sign * (s64)allocation->size);
	__sync_fetch_and_add(&total->allocated_requested, sign * (s64)allocation->requested);
}

static __always_inline void total_freed(struct allocation *allocation)
{
	struct total *total = total_of(allocation);

	if (!total)
		return;
	__sync_fetch_and_add(&total->freed, 1);
	__sync_fetch_and_add(&total->freed_bytes, allocation->size);
	__sync_fetch_and_add(&total->freed_requested, allocation->requested);
}

/*
 * An allocation of an address that is still in the ledger. Usually its free
 * went unseen. But a kmalloc above the largest cache, of a size unknown at
 * compile time, has two events, of which the second has the right call site
 * (kernels from 6.12 on: __do_kmalloc_node() calls the exported, traced
 * __kmalloc_large_node_noprof()): then the first is undone.
 */
#define DOUBLE_EVENT_WITHIN_NS 1000000

static __always_inline void book_reuse(u64 address, u64 size, u64 now_ns)
{
	struct allocation old;
	struct total *total;

	if (!strike(address, &old))
		return;
	if (old.size == size && old.cpu == bpf_get_smp_processor_id() &&
	    old.tgid == bpf_get_current_pid_tgid() >> 32 &&
	    now_ns - old.time_ns < DOUBLE_EVENT_WITHIN_NS) {
		total = total_of(&old);
		if (total)
			total_allocated(total, &old, -1);
		count(COUNT_DOUBLE_EVENTS);
		return;
	}
	total_freed(&old);
	count(COUNT_REUSED_ADDRESSES);
}

/* Enters an allocation whose stack is in scope. */
static __always_inline void enter(u64 address, struct allocation *allocation, struct stack *stack)
{
	u32 *slot = filter_slot(address);
	struct total *total;

	allocation->stack = intern(stack);
	if (!allocation->stack || !slot)
		return;
	total = total_of(allocation);
	if (!total) {
		count(COUNT_TOTALS_FULL);
		return;
	}
	__sync_fetch_and_add(slot, 1);
	if (outstanding.update(&address, allocation)) {
		__sync_fetch_and_add(slot, -1);
		count(COUNT_LEDGER_FULL);
		return;
	}
	total_allocated(total, allocation, 1);
	count(COUNT_ALLOCATED);
}

/*
 * Books an allocation if its stack touches the scope. call_site is the return
 * address that the event gives, or 0 if it gives none. program is the number
 * of the calling program, for its scratch stack.
 */
static __always_inline void book_allocation(void *ctx, u32 program, u32 family, u64 address,
					    u64 call_site, u64 size, u64 requested)
{
	struct scope *scope = current_scope();
	struct allocation allocation = {};
	struct stack *stack;

	if (!scope || !address)
		return;
	if (find_outstanding(address))
		book_reuse(address, size, bpf_ktime_get_ns());
	if (!scope->counting)
		return;
	allocation.tgid = bpf_get_current_pid_tgid() >> 32;
	if (allocation.tgid == scope->ignored_tgid)
		return;
	if (!in_scope(scope, call_site) && rules_out_scope(ctx, program, scope))
		return;
	stack = walk(ctx, program);
	if (!stack)
		return;
	if (touches_scope(stack, scope)) {
		allocation.size = size;
		allocation.requested = requested;
		allocation.time_ns = bpf_ktime_get_ns();
		allocation.cycle = scope->cycle;
		allocation.family = family;
		allocation.cpu = bpf_get_smp_processor_id();
		bpf_get_current_comm(allocation.comm, sizeof(allocation.comm));
		enter(address, &allocation, stack);
	}
	release(stack);
}

/*
 * Every free program is attached twice: the kernel skips a program that is
 * already running on this CPU, so a free in an interrupt can be lost to one
 * copy but not to both, unless it interrupts an interrupt that did the same.
 *
 * To tell how many were: copy 1 leaves a mark, copy 2 takes it away, and where
 * copy 2 finds none, copy 1 was skipped and copy 2 made it good. What copy 1
 * was skipped beyond that is lost. Both copies of one event have their context
 * at the same place of the stack, interrupts elsewhere: so it names the event,
 * with the address, since a mark stays where copy 2 was skipped.
 */
#define MARKS 64 /* a power of two */
struct free_marks {
	u64 context[3]; /* of copy 1 and copy 2: a pointer becomes a number in memory */
	u64 marks[MARKS];
	u64 made_good;
};

BPF_PERCPU_ARRAY(free_marks, struct free_marks, FREE_EVENTS);

static __always_inline void mark_free(void *ctx, u64 address, u32 event, u32 copy)
{
	struct free_marks *of_event = free_marks.lookup(&event);
	u64 context, *mark;

	if (!of_event)
		return;
	*(volatile u64 *)&of_event->context[copy] = (u64)ctx;
	context = *(volatile u64 *)&of_event->context[copy];
	mark = &of_event->marks[(context >> 3) % MARKS];
	if (copy == 1)
		*mark = context ^ address;
	else if (*mark == (context ^ address))
		*mark = 0;
	else
		__sync_fetch_and_add(&of_event->made_good, 1);
}

/* Books a free. call_site is 0 if the event gives none. copy is 1 or 2. */
static __always_inline void book_free(void *ctx, u64 address, u64 call_site, u32 event, u32 copy)
{
	struct allocation allocation;
	struct scope *scope;

	mark_free(ctx, address, event, copy);
	if (address <= 16) /* NULL and ZERO_SIZE_PTR */
		return;
	if (strike(address, &allocation)) {
		total_freed(&allocation);
		count(COUNT_FREED);
		if (copy == 2)
			count(COUNT_REPAIRED_FREES);
	} else if (copy == 1 && call_site) {
		scope = current_scope();
		if (scope && scope->counting && in_scope(scope, call_site))
			count(COUNT_FOREIGN_FREES);
	}
}
