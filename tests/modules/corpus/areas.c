// SPDX-License-Identifier: GPL-2.0-only
/* vmalloc and its relatives, and DMA memory. */
#include <linux/dma-mapping.h>
#include <linux/dmapool.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/platform_device.h>
#include <linux/vmalloc.h>

#include "corpus.h"
#include "renamed.h"

static noinline int leak_vmalloc(void)
{
	for (int i = 0; i < three; i++) {
		void *p = vmalloc(10000);

		forget(p);
	}
	return 0;
}

static noinline int leak_vzalloc_large(void)
{
	for (int i = 0; i < two; i++) {
		void *p = vzalloc(3 << 20);

		forget(p);
	}
	return 0;
}

static noinline int leak_vmalloc_user(void)
{
	for (int i = 0; i < five; i++) {
		void *p = vmalloc_user(5000);

		forget(p);
	}
	return 0;
}

static noinline int leak_vmalloc_huge(void)
{
	for (int i = 0; i < two; i++) {
		void *p = vmalloc_huge(4 << 20, GFP_KERNEL);

		forget(p);
	}
	return 0;
}

static noinline int leak_kvmalloc_area(void)
{
	for (int i = 0; i < two; i++) {
		void *p = kvmalloc(6 << 20, GFP_KERNEL);

		forget(p);
	}
	return 0;
}

/* A macro, without the old size, since commit 590b9d576cae ("mm: kvmalloc: align kvrealloc() with krealloc()", v6.12). */
#ifdef kvrealloc
#define grow(p, old_bytes, bytes) kvrealloc(p, bytes, GFP_KERNEL)
#else
#define grow(p, old_bytes, bytes) kvrealloc(p, old_bytes, bytes, GFP_KERNEL)
#endif

/* From slab into an area of its own: the slab object is freed. */
static noinline int leak_kvrealloc(void)
{
	for (int i = 0; i < three; i++) {
		void *p = kvmalloc(3000, GFP_KERNEL), *q = grow(p, 3000, 6 << 20);

		forget(q);
	}
	return 0;
}

/* The mapping owns its pages: both are lost. The array of pages is the mapping's too. */
static noinline int leak_vmap_pages(void)
{
	struct page **pages = kvmalloc_array(2, sizeof(*pages), GFP_KERNEL);
	void *p;

	if (!pages)
		return -ENOMEM;
	pages[0] = alloc_page(GFP_KERNEL);
	pages[1] = alloc_page(GFP_KERNEL);
	p = vmap(pages, 2, VM_MAP | VM_MAP_PUT_PAGES, PAGE_KERNEL);
	forget(p);
	return 0;
}

static noinline int leak_ioremap(void)
{
	for (int i = 0; i < two; i++) {
		void __iomem *p = ioremap(0xfed00000, 1024); /* the HPET's registers */

		forget(p);
	}
	return 0;
}

static struct platform_device *device;

static int make_device(void)
{
	int err;

	device = platform_device_register_simple("corpus", PLATFORM_DEVID_NONE, NULL, 0);
	if (IS_ERR(device))
		return PTR_ERR(device);
	device->dev.dma_mask = &device->dev.coherent_dma_mask;
	err = dma_set_mask_and_coherent(&device->dev, DMA_BIT_MASK(64));
	if (err)
		platform_device_unregister(device);
	return err;
}

static void remove_device(void)
{
	platform_device_unregister(device);
}

static noinline void leak_dma(void)
{
	dma_addr_t address;

	for (int i = 0; i < two; i++) {
		void *p = dma_alloc_coherent(&device->dev, 12000, &address, GFP_KERNEL);

		forget(p);
	}
}

static int start_dma(void)
{
	int err = make_device();

	if (err)
		return err;
	leak_dma();
	return 0;
}

static noinline void leak_dma_pool(void)
{
	struct dma_pool *pool = dma_pool_create("corpus", &device->dev, 64, 64, 0);
	dma_addr_t address;
	void *p;

	if (!pool)
		return;
	for (int i = 0; i < three; i++) {
		p = dma_pool_alloc(pool, GFP_KERNEL, &address);
		forget(p);
	}
}

static int start_dma_pool(void)
{
	int err = make_device();

	if (err)
		return err;
	leak_dma_pool();
	return 0;
}

const struct corpus_case area_cases[] = { { "vmalloc", leak_vmalloc },
					  { "vzalloc_large", leak_vzalloc_large },
					  { "vmalloc_user", leak_vmalloc_user },
					  { "vmalloc_huge", leak_vmalloc_huge },
					  { "kvmalloc_area", leak_kvmalloc_area },
					  { "kvrealloc", leak_kvrealloc },
					  { "vmap_pages", leak_vmap_pages },
					  { "ioremap", leak_ioremap },
					  { "dma", start_dma, remove_device },
					  { "dma_pool", start_dma_pool, remove_device },
					  {} };
