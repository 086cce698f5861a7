// SPDX-License-Identifier: GPL-2.0-only
/* Every entry of the page allocator, and per-CPU memory. */
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/percpu.h>

#include "corpus.h"
#include "renamed.h"

static noinline int leak_alloc_pages(void)
{
	for (int i = 0; i < two; i++) {
		struct page *page = alloc_pages(GFP_KERNEL, 2);

		forget(page);
	}
	return 0;
}

static noinline int leak_free_page(void)
{
	for (int i = 0; i < three; i++) {
		unsigned long p = get_zeroed_page(GFP_KERNEL);

		forget(p);
	}
	return 0;
}

static noinline int leak_compound(void)
{
	struct page *page = alloc_pages(GFP_KERNEL | __GFP_COMP, 3);

	forget(page);
	return 0;
}

/* Three pages of a block of four: the fourth is given back at once. */
static noinline int leak_pages_exact(void)
{
	for (int i = 0; i < two; i++) {
		void *p = alloc_pages_exact(3 * PAGE_SIZE, GFP_KERNEL);

		forget(p);
	}
	return 0;
}

/* Split, and all but one of the pages freed. */
static noinline int leak_split_page(void)
{
	struct page *page = alloc_pages(GFP_KERNEL, 2);

	if (!page)
		return -ENOMEM;
	split_page(page, 2);
	for (int i = 0; i < 4; i++) {
		if (i != 2)
			__free_page(page + i);
	}
	return 0;
}

#ifdef HAS_ALLOC_PAGES_BULK
static noinline int leak_pages_bulk(void)
{
	struct page *pages[7] = {};
	int number = 0;

	/* A call may give fewer than asked for; where page_owner is on, one. */
	for (int calls = 0; calls < 20 && number < ARRAY_SIZE(pages); calls++)
		number = alloc_pages_bulk(GFP_KERNEL, ARRAY_SIZE(pages), pages);
	/* Four of seven stay. */
	for (int i = 4; i < number; i++)
		__free_page(pages[i]);
	return 0;
}

#endif

/* Lists went with commit c8b979530f27 ("mm: alloc_pages_bulk_noprof: drop page_list argument"), v6.14. */
#ifdef HAS_ALLOC_PAGES_BULK_LIST
static noinline int leak_pages_bulk_list(void)
{
	struct page *page, *next;
	int number = 0;
	LIST_HEAD(pages);

	for (int calls = 0; calls < 20 && number < 11; calls++)
		number += alloc_pages_bulk_list(GFP_KERNEL, 11 - number, &pages);
	number = 0;
	/* Five of eleven stay. */
	list_for_each_entry_safe(page, next, &pages, lru)
	{
		list_del(&page->lru);
		if (number++ >= 5)
			__free_page(page);
	}
	return 0;
}
#endif

static struct page_frag_cache fragments;

/* One fragment is not freed, and the page that it is cut from stays with it. */
static noinline int leak_page_frag(void)
{
	void *p = page_frag_alloc(&fragments, 1000, GFP_KERNEL);

	forget(p);
	return 0;
}

static noinline int leak_percpu(void)
{
	for (int i = 0; i < three; i++) {
		void __percpu *p = __alloc_percpu(24, 8);

		forget(p);
	}
	return 0;
}

static noinline int leak_percpu_large(void)
{
	void __percpu *p = __alloc_percpu(10000, 64);

	forget(p);
	return 0;
}

const struct corpus_case page_cases[] = {
#ifdef HAS_ALLOC_PAGES_BULK_LIST
	{ "pages_bulk_list", leak_pages_bulk_list },
#endif
	{ "alloc_pages", leak_alloc_pages },
	{ "free_page", leak_free_page },
	{ "compound", leak_compound },
	{ "pages_exact", leak_pages_exact },
	{ "split_page", leak_split_page },
#ifdef HAS_ALLOC_PAGES_BULK
	{ "pages_bulk", leak_pages_bulk },
#endif
	{ "page_frag", leak_page_frag },
	{ "percpu", leak_percpu },
	{ "percpu_large", leak_percpu_large },
	{}
};
