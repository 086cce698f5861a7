/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The ledger: every outstanding allocation in scope by address, and totals by
 * stack and cycle. Hooks call book_allocation() and book_free(); nothing else
 * writes to these maps.
 */
BPF_TABLE("hash", u64, struct allocation, outstanding, MAX_OUTSTANDING);
BPF_TABLE("hash", struct total_key, struct total, totals, MAX_TOTALS);

/*
 * kmemleak scans the memory of maps, too: an address in the ledger would be a
 * reference to the object, and no object of ours would ever be reported. So
 * keys are complements, which no kernel address is.
 */
static __always_inline u64 ledger_key(u64 address)
{
	return ~address;
}

/*
 * A counter for each of many address hashes, above 0 while an address with
 * that hash is in the ledger: most events are of addresses that are not, and
 * learn so from one array element.
 */
BPF_ARRAY(ledger_filter, u32, FILTER_SLOTS);

static __always_inline u32 *filter_slot(u64 address)
{
	/*
	 * The multiplication spreads the pages. Objects of one page lie in the same few cache
	 * lines: where these lie anywhere, the look-up costs three times as much.
	 */
	u32 slot = ((address >> 12) * 0x9e3779b97f4a7c15ULL >> 40 ^ (address >> 6 & 63)) &
		   (FILTER_SLOTS - 1);

	return ledger_filter.lookup(&slot);
}

static __always_inline struct allocation *find_outstanding(u64 address)
{
	u32 *slot = filter_slot(address);
	u64 key = ledger_key(address);

	if (!slot || !*slot)
		return 0;
	return outstanding.lookup(&key);
}

/*
 * Takes an address out of the ledger. Returns 1 with a copy of its record if
 * this call did it: of two that race for one address, one wins.
 */
static __always_inline int strike(u64 address, struct allocation *copy)
{
	struct allocation *found = find_outstanding(address);
	u64 key = ledger_key(address);
	u32 *slot;
	int err;

	if (!found)
		return 0;
	/* Copied first: a deleted element may be given out again at once. */
	*copy = *found;
	err = outstanding.delete(&key);
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

/* Puts a record into the ledger; returns 0 where there is no room. The opposite of strike(). */
static __always_inline int put(u64 address, struct allocation *allocation)
{
	u32 *slot = filter_slot(address);
	u64 key = ledger_key(address);

	if (!slot)
		return 0;
	__sync_fetch_and_add(slot, 1);
	if (outstanding.update(&key, allocation)) {
		__sync_fetch_and_add(slot, -1);
		count(COUNT_LEDGER_FULL);
		return 0;
	}
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

/* Takes back what was booked of an allocation that turned out to be none, or another's. */
static __always_inline void undo(struct allocation *old)
{
	struct total *total = total_of(old);

	if (total)
		total_allocated(total, old, -1);
	count(COUNT_DOUBLE_EVENTS);
}

/*
 * Where frees go unseen, by slab cache: what a kernel leaves open is measured
 * on the addresses that come up again.
 */
BPF_TABLE("hash", struct cache_name, u64, reused_by_cache, 256);

static __always_inline void count_reuse(struct cache_name *cache)
{
	u64 *found, one = 1;

	count(COUNT_REUSED_ADDRESSES);
	found = reused_by_cache.lookup(cache);
	if (found)
		__sync_fetch_and_add(found, 1);
	else
		reused_by_cache.update(cache, &one);
}

/*
 * The key of a block of pages whose first page was freed and is given out
 * again: that page may be the key of another record. No page has these bits.
 */
#define SPLIT_KEY 2

static __always_inline int lost_its_head(struct allocation *block)
{
	return block->family == FAMILY_PAGES && block->pieces & 1;
}

/*
 * An allocation of an address that is still in the ledger. Usually its free
 * went unseen. But a kmalloc above the largest cache, of a size unknown at
 * compile time, has two events, of which the second has the right call site
 * (kernels from 6.12 on: __do_kmalloc_node() calls the exported, traced
 * __kmalloc_large_node_noprof()): then the first is undone. So is what copy 2
 * of a program books again, where the mark of copy 1 was written over. So are
 * pages that come up as an object's or a buffer's memory: the same memory,
 * counted once.
 */
#define DOUBLE_EVENT_WITHIN_NS (1000000 + CLOCK_STEP_NS)
#define LARGEST_CACHE_BYTES (2 * PAGE_BYTES) /* KMALLOC_MAX_CACHE_SIZE */

static __always_inline int is_same_memory(struct allocation *old, u32 family, u64 size, u32 copy)
{
	/* Of own calls the first of such two is not booked: its call site is the allocator's. */
	int twice = !OWN_CALLS && family == FAMILY_KMALLOC && size > LARGEST_CACHE_BYTES;

	if (old->family == FAMILY_PAGES || old->family == FAMILY_VMAP_AREA)
		return family == FAMILY_DMA ||
		       (old->family == FAMILY_PAGES && family != FAMILY_PAGES);
	/* Of other sizes that is an object whose free went unseen: the next to be given out. */
	return (twice || copy == 2) && old->family == family && old->size == size &&
	       old->cpu == bpf_get_smp_processor_id() &&
	       old->tgid == bpf_get_current_pid_tgid() >> 32 &&
	       allocation_time() - old->time_ns < DOUBLE_EVENT_WITHIN_NS;
}

/* Makes room for an allocation of an address that is in the ledger. copy is 1 or 2. */
static __always_inline void book_reuse(u64 address, u32 family, u64 size, struct cache_name *cache,
				       u32 copy)
{
	struct allocation old;

	if (!strike(address, &old))
		return;
	if (lost_its_head(&old)) {
		put(address | SPLIT_KEY, &old);
		return;
	}
	if (is_same_memory(&old, family, size, copy)) {
		undo(&old);
		return;
	}
	total_freed(&old);
	count_reuse(cache);
}

/*
 * Programs of events that interrupts cause are attached twice: the kernel
 * skips a program that is already running on this CPU, so an event in an
 * interrupt can be lost to one copy but not to both, unless it interrupts an
 * interrupt that did the same.
 *
 * To tell what was: copy 1 leaves a mark, copy 2 takes it away, and where
 * copy 2 finds none, copy 1 was skipped and copy 2 makes it good. What copy 1
 * was skipped beyond that is lost. Both copies of one event have their context
 * at the same place of the stack, interrupts elsewhere: so it names the event,
 * with the address, since a mark stays where copy 2 was skipped.
 */
#define MARKS 64 /* a power of two */
struct event_marks {
	u64 context[3]; /* of copy 1 and copy 2: a pointer becomes a number in memory */
	u64 marks[MARKS];
	u64 made_good;
};

BPF_PERCPU_ARRAY(event_marks, struct event_marks, COPIED_EVENTS);

/* Returns 1 if this is copy 2 and copy 1 has seen the event. */
static __always_inline int seen_by_first(void *ctx, u64 address, u32 event, u32 copy)
{
	struct event_marks *of_event = event_marks.lookup(&event);
	u64 context, *mark;

	if (!of_event)
		return 0;
	*(volatile u64 *)&of_event->context[copy] = (u64)ctx;
	context = *(volatile u64 *)&of_event->context[copy];
	mark = &of_event->marks[(context >> 3) % MARKS];
	if (copy == 1) {
		*mark = context ^ address;
		return 0;
	}
	if (*mark == (context ^ address)) {
		*mark = 0;
		return 1;
	}
	__sync_fetch_and_add(&of_event->made_good, 1);
	return 0;
}

/*
 * Whether an allocation may concern the ledger: its address is in it, or its
 * stack may touch the scope. Asked before anything else is looked at: for most
 * events the answer is no. program is the number of the calling program, for
 * its scratch; call_site the return address that the event gives, or 0.
 *
 * Copy 2 gets this far where copy 1 was skipped. That is seldom enough for a
 * walk to decide, and the verifier is done with it in half the time.
 */
static __always_inline int concerns(void *ctx, u32 program, u32 copy, u64 address, u64 call_site)
{
	struct scope *scope = current_scope();

#if SAMPLE_EVERY && !OWN_CALLS
	if (scope && scope->counting)
		return 1; /* everything does; book_allocation() looks for the address */
#endif
	if (find_outstanding(address))
		return 1;
	if (!scope || !scope->counting)
		return 0;
	if (scope->by_process && !is_followed(bpf_get_current_pid_tgid() >> 32))
		return 0;
	if (is_others_call(scope, call_site))
		return 0;
	return copy == 2 || scope->everything || in_scope(scope, call_site) ||
	       !rules_out_scope(ctx, program, scope);
}

/*
 * Describes an allocation that is made now, all but its sizes. Returns 1 if
 * its stack touches the scope. program is the number of the calling program,
 * for its scratch stack; call_site the return address that the event gives, or 0.
 */
static __always_inline int describe(void *ctx, u32 program, u32 family, u64 call_site,
				    struct allocation *allocation)
{
	struct scope *scope = current_scope();
	struct stack *stack;

	if (!scope || !scope->counting || is_others_call(scope, call_site))
		return 0;
	allocation->tgid = bpf_get_current_pid_tgid() >> 32;
	if (scope->ignore_tracer && allocation->tgid == scope->tracer_tgid)
		return 0;
	if (scope->by_process && !is_followed(allocation->tgid))
		return 0;
	stack = walk(ctx, program);
	if (!stack)
		return 0;
#if SAMPLE_EVERY
	stack->call_site = call_site;
#endif
	allocation->stack = 0;
	if (touches_scope(stack, scope)) {
		if (family == FAMILY_PAGES && is_owned(stack))
			count(COUNT_OWNED_PAGES);
		else
			allocation->stack = intern(stack);
	}
	release(stack);
	if (!allocation->stack)
		return 0;
	allocation->time_ns = allocation_time();
	allocation->cycle = scope->cycle;
	allocation->family = family;
	allocation->cpu = bpf_get_smp_processor_id();
	bpf_get_current_comm(allocation->comm, sizeof(allocation->comm));
	return 1;
}

/* Where an allocation that describe() described counts; of many that are alike, of all. */
static __always_inline struct total *total_for(struct allocation *allocation, u64 number)
{
	struct total *total = total_of(allocation);

	if (!total)
		count_many(COUNT_TOTALS_FULL, number);
	return total;
}

/* Enters an allocation that describe() described, and counts it in its total. */
static __always_inline void enter(u64 address, struct allocation *allocation, struct total *total)
{
	if (!put(address, allocation))
		return;
	total_allocated(total, allocation, 1);
	count(COUNT_ALLOCATED);
}

#if SAMPLE_EVERY
/*
 * Books an allocation under its call site. Returns 0 if its stack is to be walked, or nothing is
 * to be booked: then describe() will say so again.
 */
static __always_inline int book_by_call_site(u32 family, u64 address, u64 call_site, u64 size,
					     u64 requested)
{
	struct scope *scope = current_scope();
	struct allocation allocation = {
		.stack = call_site,
		.size = size,
		.requested = requested,
		.family = family,
	};
	struct total *total;

	if (!call_site || !scope || !scope->counting || is_others_call(scope, call_site))
		return 0;
	allocation.tgid = bpf_get_current_pid_tgid() >> 32;
	if (scope->ignore_tracer && allocation.tgid == scope->tracer_tgid)
		return 0;
	allocation.cycle = scope->cycle;
	total = total_of(&allocation);
	if (!total || is_walked(call_site, total))
		return 0;
	allocation.time_ns = allocation_time();
	allocation.cpu = bpf_get_smp_processor_id();
	enter(address, &allocation, total);
	return 1;
}
#else
static __always_inline int book_by_call_site(u32 family, u64 address, u64 call_site, u64 size,
					     u64 requested)
{
	return 0;
}
#endif

/*
 * Books an allocation that concerns() the ledger, if its stack is in scope.
 * copy is 1 or 2; program is the number of the first copy; call_site is 0 if the event gives none.
 */
static __always_inline void book_allocation(void *ctx, u32 program, u32 copy, u32 family,
					    u64 address, u64 size, u64 requested, u64 cache,
					    u64 call_site)
{
	struct allocation allocation = {};
	struct cache_name name = {};
	struct total *total;

	if (!address)
		return;
	if (find_outstanding(address)) {
		name.size = size;
#ifdef OFF_KMEM_CACHE_NAME
		if (cache)
			bpf_probe_read_kernel_str(name.name, sizeof(name.name),
						  (void *)read_u64(cache + OFF_KMEM_CACHE_NAME));
#endif
		book_reuse(address, family, size, &name, copy);
	}
	if (!book_by_call_site(family, address, call_site, size, requested)) {
		allocation.size = size;
		allocation.requested = requested;
		if (!describe(ctx, program + copy - 1, family, call_site, &allocation))
			return;
		total = total_for(&allocation, 1);
		if (!total)
			return;
		enter(address, &allocation, total);
	}
	if (copy == 2)
		count(COUNT_REPAIRED_ALLOCATIONS);
}

/*
 * Books the free of one address; returns 1 if it was in the ledger. copy is 1 or 2; of programs
 * that are the same twice both are 1, and the later one finds nothing left.
 */
static __always_inline int book_one_free(u64 address, u32 copy)
{
	struct allocation allocation;

	if (address <= 16 || !strike(address, &allocation)) /* NULL and ZERO_SIZE_PTR */
		return 0;
	total_freed(&allocation);
	count(COUNT_FREED);
	if (copy == 2)
		count(COUNT_REPAIRED_FREES);
	return 1;
}

/* Books a free that a tracepoint tells of. call_site is 0 if the event gives none. */
static __always_inline void book_free(void *ctx, u64 address, u64 call_site, u32 event, u32 copy)
{
	struct scope *scope;

	seen_by_first(ctx, address, event, copy);
	/* What the scope frees need not have been allocated by its own call, where only such count. */
	if (!book_one_free(address, copy) && copy == 1 && call_site && address > 16 && !OWN_CALLS) {
		scope = current_scope();
		if (scope && scope->counting && !scope->by_process && !scope->everything &&
		    in_scope(scope, call_site))
			count(COUNT_FOREIGN_FREES);
	}
}
