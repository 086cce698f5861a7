/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef RENAMED_H
#define RENAMED_H

/* What the kernels from 5.10 to 7.3 call differently, by its newest name. */
#include <linux/hrtimer.h>
#include <linux/irq_work.h>
#include <linux/mm.h>
#include <linux/timer.h>
#include <linux/version.h>

/* page_frag_alloc() has had a header of its own since v6.13. */
#if __has_include(<linux/page_frag_cache.h>)
#include <linux/page_frag_cache.h>
#endif

/*
 * Since v5.13; to a list too before commit c8b979530f27 ("mm: alloc_pages_bulk_noprof: drop
 * page_list argument"), v6.14, after which the array's call got this name.
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 13, 0)
#define HAS_ALLOC_PAGES_BULK 1
#ifndef alloc_pages_bulk
#define HAS_ALLOC_PAGES_BULK_LIST 1
#define alloc_pages_bulk(gfp, number, pages) alloc_pages_bulk_array(gfp, number, pages)
#endif
#endif

/* Since v5.18; before, every vmalloc() might use huge pages. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 18, 0)
#define vmalloc_huge(bytes, gfp) __vmalloc(bytes, gfp)
#endif

/* Since v5.11. */
#ifndef IRQ_WORK_INIT_HARD
#define IRQ_WORK_INIT_HARD(callback)                                          \
	{                                                                     \
		.flags = ATOMIC_INIT(IRQ_WORK_HARD_IRQ), .func = (callback) \
	}
#endif

/* Since v6.2; the older name went with v6.15. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
#define timer_delete_sync(timer) del_timer_sync(timer)
#endif

/* Since v6.13; the older name went with v6.15. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
#define hrtimer_setup(timer, callback, clock, mode) \
	do {                                        \
		hrtimer_init(timer, clock, mode);   \
		(timer)->function = (callback);     \
	} while (0)
#endif

#ifndef kvfree_rcu_mightsleep
#define kvfree_rcu_mightsleep(pointer) kvfree_rcu(pointer)
#endif

#endif
