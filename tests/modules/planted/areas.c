// SPDX-License-Identifier: GPL-2.0-only
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "planted.h"

static int two = 2, regions = 3;
module_param(two, int, 0444);
module_param(regions, int, 0444);

static noinline void leak_vmalloc(void)
{
	for (int i = 0; i < regions; i++) {
		void *p = vmalloc(10000); /* LEAK leak_vmalloc */

		OPTIMIZER_HIDE_VAR(p);
	}
}

/* Above 512 pages the array of pages is a vmalloc of its own, inside this one. */
static noinline void leak_big_vmalloc(void)
{
	for (int i = 0; i < two; i++) {
		void *p = vmalloc(3 << 20); /* LEAK leak_big_vmalloc */

		OPTIMIZER_HIDE_VAR(p);
	}
}

/* Slab serves up to 4 MB: here kvmalloc falls back to vmalloc. */
static noinline void leak_kvmalloc(void)
{
	for (int i = 0; i < two; i++) {
		void *p = kvmalloc(6 << 20, GFP_KERNEL); /* LEAK leak_kvmalloc */

		OPTIMIZER_HIDE_VAR(p);
	}
}

/* A mapping that is never undone: address space, no memory of its own. */
static noinline void leak_vmap(void)
{
	struct page *page = ZERO_PAGE(0);

	for (int i = 0; i < two; i++) {
		void *p = vmap(&page, 1, VM_MAP, PAGE_KERNEL); /* LEAK leak_vmap */

		OPTIMIZER_HIDE_VAR(p);
	}
}

void leak_areas(void)
{
	leak_vmalloc();
	leak_big_vmalloc();
	leak_kvmalloc();
	leak_vmap();
}
