/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Pages: include/trace/events/kmem.h. The key of a block is the address of its
 * memory, so that pages which turn out to be a large kmalloc's or a DMA
 * buffer's are found; or, where the kernel hides what that takes, the address
 * of its struct page.
 *
 * A block that was split is freed by the piece: its record shrinks, and goes
 * with the last one.
 */
#if defined(ADDRESS_VMEMMAP_BASE) && defined(ADDRESS_PAGE_OFFSET_BASE)
#define PAGE_STRIDE PAGE_BYTES
struct page_layout {
	u64 vmemmap; /* where the array of struct page begins */
	u64 direct; /* where memory is mapped */
};

BPF_ARRAY(page_layouts, struct page_layout, 1);

static __always_inline u64 page_key(u64 page)
{
	u32 zero = 0;
	struct page_layout *layout = page_layouts.lookup(&zero);

	if (!page || !layout)
		return 0;
	if (!layout->vmemmap) {
		layout->direct = read_u64(ADDRESS_PAGE_OFFSET_BASE);
		layout->vmemmap = read_u64(ADDRESS_VMEMMAP_BASE);
	}
	return layout->direct + (page - layout->vmemmap) / SIZE_PAGE * PAGE_BYTES;
}
#else
#define PAGE_STRIDE SIZE_PAGE
static __always_inline u64 page_key(u64 page)
{
	return page;
}
#endif

struct orders_seen {
	u8 seen[PAGE_ORDERS_ROUNDED];
};

/* Which orders of blocks were ever booked: a free looks for the heads of these only. */
BPF_ARRAY(page_orders, struct orders_seen, 1);

/* Completes what describe() said of pages. Returns 0 for a block larger than any there is. */
static __always_inline int describe_pages(u32 order, struct allocation *allocation)
{
	u32 zero = 0, slot = order;
	struct orders_seen *orders = page_orders.lookup(&zero);

	if (!orders || order >= PAGE_ORDERS)
		return 0;
	/* For the verifier of 6.1: it forgets what was checked of a register that is spilled. */
	keep_bound(slot);
	orders->seen[slot & (PAGE_ORDERS_ROUNDED - 1)] = 1;
	allocation->size = allocation->requested = (u64)PAGE_BYTES << order;
	allocation->order = order;
	return 1;
}

static __always_inline int book_page_alloc(raw_tp *ctx, u32 copy)
{
	u64 key = page_key(ctx->args[ARG_MM_PAGE_ALLOC_PAGE]);
	u32 order = (u32)ctx->args[ARG_MM_PAGE_ALLOC_ORDER] & 31;
	struct scope *scope = current_scope();
	struct allocation allocation = {};
	struct cache_name name = {};
	struct total *total;

	/* In a scope of everything, what may move is left out: user memory and page cache. */
	if (!scope || !key ||
	    (scope->everything && ctx->args[ARG_MM_PAGE_ALLOC_GFP_FLAGS] & GFP_MOVABLE_BIT))
		return 0;
	if (seen_by_first(ctx, key, ALLOC_MM_PAGE_ALLOC, copy) ||
	    !concerns(ctx, PROGRAM_MM_PAGE_ALLOC, copy, key, 0))
		return 0;
	if (find_outstanding(key)) {
		name.size = (u64)PAGE_BYTES << order;
		book_reuse(key, FAMILY_PAGES, name.size, &name, copy);
	}
	if (!describe(ctx, PROGRAM_MM_PAGE_ALLOC + copy - 1, FAMILY_PAGES, 0, &allocation) ||
	    !describe_pages(order, &allocation))
		return 0;
	total = total_for(&allocation, 1);
	if (!total)
		return 0;
	enter(key, &allocation, total);
	if (copy == 2)
		count(COUNT_REPAIRED_ALLOCATIONS);
	return 0;
}

int on_mm_page_alloc_1(raw_tp *ctx)
{
	return book_page_alloc(ctx, 1);
}

int on_mm_page_alloc_2(raw_tp *ctx)
{
	return book_page_alloc(ctx, 2);
}

/*
 * Pages in bulk have no event but for one that was fetched singly. Those that
 * were in the array before the call are in the ledger, or not in scope. To a
 * list, each new page was added at the head, so the new ones come first.
 */
#ifdef ARGUMENT_ALLOC_PAGES_BULK_ARRAY
static __always_inline void enter_one_of_bulk(u64 page, struct allocation *allocation,
					      struct total *total)
{
	u64 key = page_key(page);
	struct allocation *found;

	if (!key)
		return;
	found = find_outstanding(key);
	/* To move the block, as book_reuse() does, would take the verifier too long: 512 times. */
	if (found && lost_its_head(found))
		key |= SPLIT_KEY;
	else if (found)
		return;
	enter(key, allocation, total);
}

static __always_inline int book_alloc_pages_bulk(void *ctx, u64 number)
{
	u64 array = argument_of(ctx, ARGUMENT_ALLOC_PAGES_BULK_ARRAY);
	struct allocation allocation = {};
	struct total *total;
	u64 list = 0;

#ifdef ARGUMENT_ALLOC_PAGES_BULK_LIST
	list = argument_of(ctx, ARGUMENT_ALLOC_PAGES_BULK_LIST);
#endif
	if (!(array || list) || !concerns(ctx, PROGRAM_ALLOC_PAGES_BULK, 1, 0, 0) ||
	    !describe(ctx, PROGRAM_ALLOC_PAGES_BULK, FAMILY_PAGES, 0, &allocation) ||
	    !describe_pages(0, &allocation))
		return 0;
	total = total_for(&allocation, number);
	if (!total)
		return 0;
	for (u32 i = 0; i < BULK_OBJECTS; i++) {
		keep_bound(i);
		if (i >= number)
			return 0;
		if (array) {
			enter_one_of_bulk(read_u64(array + i * sizeof(u64)), &allocation, total);
			continue;
		}
#ifdef ARGUMENT_ALLOC_PAGES_BULK_LIST
		list = read_u64(list); /* list_head.next */
		enter_one_of_bulk(list - OFF_PAGE_LRU, &allocation, total);
#endif
	}
	if (number > BULK_OBJECTS)
		count(COUNT_BULK_BEYOND);
	return 0;
}

#ifdef PARAMETERS___alloc_pages_bulk
KRETFUNC_PROBE(__alloc_pages_bulk)
{
	return book_alloc_pages_bulk(ctx, result_of(ctx, __alloc_pages_bulk));
}
#endif

#ifdef PARAMETERS_alloc_pages_bulk_noprof
KRETFUNC_PROBE(alloc_pages_bulk_noprof)
{
	return book_alloc_pages_bulk(ctx, result_of(ctx, alloc_pages_bulk_noprof));
}
#endif
#endif

/*
 * Takes bytes off a block; with the last ones it goes. Two CPUs may free its
 * last pieces at once: both take theirs off before they look what is left.
 */
static __always_inline void book_piece(struct allocation *block, u64 key, u64 bytes, u32 copy)
{
	struct total *total = total_of(block);

	if (total) {
		__sync_fetch_and_add(&total->freed_bytes, bytes);
		__sync_fetch_and_add(&total->freed_requested, bytes);
	}
	__sync_fetch_and_add(&block->size, -bytes);
	__sync_fetch_and_add(&block->requested, -bytes);
	if (*(volatile s64 *)&block->size <= 0)
		book_one_free(key, copy);
}

/*
 * Notes that pages of a block were freed; returns 0 if they were before. The
 * second copy only makes good: no piece may be taken off twice. A block of
 * more pages than a word has bits relies on the marks alone.
 */
#define PIECE_BITS_ORDER 6
static __always_inline int note_piece(struct allocation *block, u64 index, u32 order, int seen)
{
	u64 pages;

	if (block->order > PIECE_BITS_ORDER)
		return !seen;
	pages = order >= PIECE_BITS_ORDER ? ~0ULL
					  : ((1ULL << (1u << (order & 7))) - 1) << (index & 63);
	if (block->pieces & pages)
		return 0;
	/* A page is freed once, so to add its bit is to set it; two CPUs may at one time. */
	__sync_fetch_and_add(&block->pieces, pages);
	return 1;
}

/* Books pages that are freed as part of the block at at, if there is one of this order. */
static __always_inline int book_page_of(u64 at, u64 key, u32 block_order, u32 order, u32 copy,
					int seen)
{
	struct allocation *block = find_outstanding(at);
	u64 index = (key - (at & ~(u64)SPLIT_KEY)) / PAGE_STRIDE;

	if (!block || block->family != FAMILY_PAGES || block->order != block_order)
		return 0;
	/* A record at a split key does not cover its freed pages: they may be others' now. */
	if (at & SPLIT_KEY && block->order <= PIECE_BITS_ORDER && block->pieces >> (index & 63) & 1)
		return 0;
	if (order == block_order)
		book_one_free(at, copy);
	else if (note_piece(block, index, order, seen))
		book_piece(block, at, (u64)PAGE_BYTES << (order & 31), copy);
	return 1;
}

static __always_inline int book_page_free(raw_tp *ctx, u32 copy)
{
	u64 key = page_key(ctx->args[ARG_MM_PAGE_FREE_PAGE]), head;
	u32 zero = 0, order = ctx->args[ARG_MM_PAGE_FREE_ORDER];
	struct orders_seen *orders = page_orders.lookup(&zero);
	int seen = seen_by_first(ctx, key, FREE_MM_PAGE_FREE, copy);

	if (!orders || !key)
		return 0;
	for (u32 i = 0; i < PAGE_ORDERS; i++) {
		if (!orders->seen[i])
			continue;
		/* Of blocks of this order, the one that this page lies in. */
		head = key & ~(((u64)PAGE_STRIDE << i) - 1);
		if (book_page_of(head, key, i, order, copy, seen) ||
		    book_page_of(head | SPLIT_KEY, key, i, order, copy, seen))
			return 0;
	}
	return 0;
}

int on_mm_page_free_1(raw_tp *ctx)
{
	return book_page_free(ctx, 1);
}

int on_mm_page_free_2(raw_tp *ctx)
{
	return book_page_free(ctx, 2);
}

/*
 * Pages that the page cache takes are its own from then on, whoever made it
 * read or write: by the event, for the functions that ask for them are many,
 * and inlined.
 */
#ifdef ARGUMENT_ADDED_TO_PAGE_CACHE
static __always_inline int book_page_cache(raw_tp *ctx)
{
	u64 key = page_key(ctx->args[ARGUMENT_ADDED_TO_PAGE_CACHE]);
	struct allocation *found = find_outstanding(key), taken;

	if (key && found && found->family == FAMILY_PAGES && strike(key, &taken))
		undo(&taken);
	return 0;
}

int on_added_to_page_cache(raw_tp *ctx)
{
	return book_page_cache(ctx);
}
#endif
