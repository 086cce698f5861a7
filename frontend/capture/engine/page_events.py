"""pages.c: blocks of pages, and whose pages are not counted because something else is."""

from __future__ import annotations

import os

from kleak.capture.engine.declared import MAX_PAGE_OWNERS
from kleak.capture.engine.hooks import (
    Attachment,
    Event,
    Plan,
    arguments,
    offset,
    profiled,
    traced_function,
    tracepoint,
)
from kleak.parsers.btf import Btf
from kleak.symbols.kernel_table import KernelTable

# Functions that ask for pages to make other memory of them. That memory has events of its own,
# or (page cache, chunks of per-CPU memory) is the kernel's, whoever made it ask.
_PAGE_OWNERS = (
    *profiled("allocate_slab", "new_slab", "alloc_slab_page", "___slab_alloc"),
    *profiled("kmalloc_large", "__kmalloc_large", "kmalloc_large_node", "__kmalloc_large_node"),
    *profiled("___kmalloc_large_node", "kmalloc_order", "__get_free_pages_kmalloc"),
    *profiled("__vmalloc_node_range", "__vmalloc_area_node", "vm_area_alloc_pages"),
    *profiled("pcpu_alloc_pages", "pcpu_populate_chunk", "pcpu_balance_workfn"),
    *profiled("filemap_alloc_folio", "__page_cache_alloc", "page_cache_ra_unbounded"),
    *profiled("shmem_alloc_folio", "shmem_alloc_page", "shmem_alloc_hugefolio"),
    *profiled("__iommu_dma_alloc_pages", "stack_depot_save", "__stack_depot_save"),
    *profiled("stack_depot_save_flags"),
)
# What tells where a page is mapped: the variables, and the function that there is with
# CONFIG_SPARSEMEM_VMEMMAP only. Without it the variables mean nothing.
_LAYOUT_VARIABLES = ("vmemmap_base", "page_offset_base")
MEMORY_LAYOUT = (*_LAYOUT_VARIABLES, "vmemmap_populate")


def add_pages(btf: Btf, table: KernelTable, plan: Plan) -> None:
    """Add the events of the page allocator to ``plan``."""
    without = "pages cannot be traced on this kernel"
    constants = plan.constants
    constants.update(arguments(btf, "mm_page_alloc", ("page", "order", "gfp_flags")))
    constants.update(arguments(btf, "mm_page_free", ("page", "order")))
    constants["PAGE_BYTES"] = os.sysconf("SC_PAGESIZE")
    constants["SIZE_PAGE"] = btf.struct_size("page") or 0
    # In BTF since commit 772dd0342727 ("mm: enumerate all gfp flags"), v6.10; before, this.
    bit = btf.enumerator("___GFP_MOVABLE_BIT")
    constants["GFP_MOVABLE_BIT"] = 0x08 if bit is None else 1 << bit
    layout = {name: at for name in MEMORY_LAYOUT if (at := table.address_of(name)) is not None}
    if len(layout) == len(MEMORY_LAYOUT):
        for variable in _LAYOUT_VARIABLES:
            constants[f"ADDRESS_{variable.upper()}"] = layout[variable]
    plan.page_owners = table.ranges_of_functions(_PAGE_OWNERS)[:MAX_PAGE_OWNERS]
    plan.events += [
        Event(
            "mm_page_alloc",
            (tracepoint("mm_page_alloc", "on_mm_page_alloc_1", "on_mm_page_alloc_2"),),
            without,
        ),
        Event(
            "mm_page_free",
            (tracepoint("mm_page_free", "on_mm_page_free_1", "on_mm_page_free_2"),),
            without,
        ),
    ]
    # The page cache tells of what it took: by its folio, in older kernels by its page.
    name = "mm_filemap_add_to_page_cache"
    parameters = btf.function_parameters(f"__traceiter_{name}")
    if parameters is not None and len(parameters) > 1:
        constants["ARGUMENT_ADDED_TO_PAGE_CACHE"] = 0
        plan.events.append(
            Event(
                name,
                (tracepoint(name, "on_added_to_page_cache"),),
                "pages of the page cache may look outstanding",
            )
        )
    bulk = traced_function(btf, Attachment.FEXIT, ("alloc_pages_bulk_noprof", "__alloc_pages_bulk"))
    if not bulk:  # exported where it exists: up to v5.12 there is none, and nothing to miss
        return
    parameters = btf.function_parameters(bulk[0].target)
    if parameters is None or "page_array" not in parameters:
        bulk = ()
    else:
        constants["ARGUMENT_ALLOC_PAGES_BULK_ARRAY"] = parameters.index("page_array")
        # To a list until commit c8b979530f27 ("mm: alloc_pages_bulk_noprof: drop page_list
        # argument"), v6.14.
        if "page_list" in parameters:
            constants["ARGUMENT_ALLOC_PAGES_BULK_LIST"] = parameters.index("page_list")
            constants["OFF_PAGE_LRU"] = offset(btf, "page", "lru")
    plan.events.append(
        Event("alloc_pages_bulk", bulk, "pages allocated in bulk cannot be seen here")
    )
