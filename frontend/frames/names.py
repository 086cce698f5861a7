"""What the functions of the kernel are called, and which belong to the tracer, to the allocators
or to interrupts.

Names of functions that may be missing on a kernel are listed all the same: a name that does not
occur matches nothing.
"""

from __future__ import annotations

import re
from functools import lru_cache

from kleak.model.session import Frame

# What the kernel's allocation profiling appends to a function's name: commit 7bd230a26648
# ("mm/slab: enable slab allocation tagging for kmalloc and friends").
_NOPROF = "_noprof"

# kallsyms gives these in the brackets where a module's name stands (kernel/kallsyms.c).
_PSEUDO_MODULES = frozenset({None, "bpf", "__builtin__ftrace", "__builtin__kprobes"})


def _names(*patterns: str) -> re.Pattern[str]:
    """A pattern for whole function names, with any number of leading underscores."""
    return re.compile(r"_*(?:" + "|".join(patterns) + ")")


# --- the tracer -----------------------------------------------------------------------------

# Trampolines stay on the stack below a hooked function, so they occur in the middle as well.
_TRAMPOLINE = _names(
    r"bpf_trampoline_\w+",
    r"bpf_dispatcher_\w+",
    r"ftrace_trampoline",
    r"ftrace_(?:regs_)?caller\w*",
    r"ftrace_regs_call",
    r"ftrace_call",
    r"arch_rethook_trampoline",
    r"kretprobe_trampoline",
    r"kprobe_trampoline\w*",
    r"optprobe_template_\w+",
    r"kprobe_(?:optinsn|insn)_page",
)
_TRACER = _names(
    r"bpf_prog_\w+",
    r"bpf_trace_run\w*",
    r"bpf_trace_\w+",
    r"bpf_get_stack\w*",
    r"get_perf_callchain",
    r"traceiter_\w+",
    r"trace_event_raw_event_\w+",
    r"trace_event_buffer_\w+",
    r"trace_call_bpf",
    r"perf_trace_\w+",
    r"perf_call_bpf_\w+",
    r"perf_tp_event\w*",
    r"kprobe_(?:perf_func|dispatcher|ftrace_handler|int3_handler)",
    r"kretprobe_(?:perf_func|dispatcher|rethook_handler)",
    r"aggr_pre_handler",
    r"opt_pre_handler",
    r"optimized_callback",
    r"rethook_trampoline_\w+",
    r"arch_rethook_trampoline_callback",
    r"(?:asm_)?exc_int3",
    r"do_int3\w*",
)

# --- the allocators -------------------------------------------------------------------------

SLAB = _names(
    r"(?:do_)?k[mzc]alloc\w*",
    r"do_kmalloc_node",
    r"kmem_cache_z?alloc\w*",
    r"kv?realloc\w*",
    r"kv[mzc]alloc\w*",
    r"kv?memdup\w*",
    r"v?memdup_\w+",
    r"strndup_user",
    r"kstrn?dup\w*",
    r"kv?asprintf\w*",
    r"devm_k\w*(?:alloc|dup|printf)\w*",
    r"devres_alloc\w*",
    r"alloc_dr",
    r"mempool_(?:alloc|kmalloc|kvmalloc|create|init|resize)\w*",
    r"slab_(?:alloc|pre_alloc|post_alloc)\w*",
    r"new_slab\w*",
    r"allocate_slab",
    r"alloc_slab_page",
    r"alloc_single_from_\w+",
    r"get_partial\w*",
    r"(?:alloc_from|prefill|refill)_(?:pcs|sheaf\w*)",
    r"pcs_replace_\w+",
    r"memcg_slab_(?:pre|post)_alloc_hook",
    r"(?:prepare_slab_obj_exts|alloc_tagging_slab_alloc)_hook",
)
# Memory the allocator takes for itself while it serves somebody: vectors for memory cgroups and
# allocation tags (belong to a slab, go with it), sheaves, kmemleak's records, page_owner's stacks,
# chunks of the per-CPU allocator. With a module's frame right behind them, but never the module's.
OWN_USE = _names(
    r"memcg_alloc_(?:slab|page)_(?:obj_)?cgroups",
    r"alloc_slab_obj_exts",
    r"memcg_(?:list_lru_alloc|init_list_lru_one)",
    r"alloc_empty_sheaf\w*",
    r"create_object\w*",
    r"alloc_object",
    r"mem_pool_alloc",
    r"kmemleak_\w+",
    r"kasan_\w+",
    r"set_page_owner\w*",
    r"(?:inc_stack_record_count|add_stack_record_to_list)",
    r"stack_depot_\w+",
    r"depot_\w+",
    r"pcpu_(?:create_chunk|alloc_chunk|populate_chunk|get_pages|mem_zalloc|balance_\w+)",
)
_PERCPU = _names(r"alloc_percpu\w*", r"pcpu_\w+")
_PAGES = _names(
    r"alloc_(?:frozen_)?pages?\w*",
    r"get_free_pages?",
    r"get_zeroed_page",
    r"folio_alloc\w*",
    r"(?:post_alloc_hook|prep_new_page|get_page_from_freelist|rmqueue\w*)",
)
# Called to get an object, per-CPU memory or pages: what is allocated below is something else.
ENTRY = _names(
    r"k[mzc]alloc\w*",
    r"do_kmalloc_node",
    r"kmem_cache_z?alloc\w*",
    r"(?:pcpu_alloc|alloc_percpu\w*)",
    r"alloc_(?:frozen_)?pages\w*",
)
# A page of these is shared by many, and kept until the next one is needed.
PAGE_FRAGMENTS = _names(r"page_frag_(?:alloc|cache_refill)\w*")
_DMA = _names(
    r"dmam?_alloc_\w+",
    r"dma_direct_alloc\w*",
    r"iommu_dma_alloc\w*",
    r"dmam?_pool_(?:z?alloc|create)\w*",
    r"pool_alloc_page",
)
# Inside vmalloc and vmap: what these take from the slab allocator is their own bookkeeping.
VM_INTERNAL = _names(
    r"get_vm_area_node",
    r"get_vm_area_caller",
    r"alloc_vmap_area",
    r"vmalloc_node_range",
    r"vmalloc_area_node",
    r"vm_area_alloc_pages",
    r"setup_vmalloc_vm",
    r"preload_this_cpu_lock",
    r"adjust_va_to_fit_type",
    r"va_clip",
    r"va_alloc",
    r"new_vmap_block",
    r"vb_alloc",
    r"(?:reclaim_and_)?purge_\w*vmap\w*",
    r"purge_\w+",
    r"memtype_(?:reserve|kernel_map_sync)\w*",
)
_EXECMEM = _names(r"module_alloc\w*", r"module_memory_alloc", r"execmem_\w+")
_IOREMAP = _names(
    r"(?:arch_)?ioremap\w*",
    r"generic_ioremap_\w+",
    r"(?:arch_)?memremap\w*",
    r"devm_(?:platform_)?(?:get_and_)?(?:of_)?(?:io|mem)remap\w*",
    r"pcim?_iomap\w*",
    r"pci_iomap\w*",
    r"acpi_os_(?:io)?remap\w*",
    r"acpi_os_map_\w+",
)
_VM_MAP_RAM = _names(r"vm_map_ram", r"new_vmap_block", r"vb_alloc")
_VMAP = _names(r"vmap", r"vmap_(?:pfn|pages|range)\w*", r"dma_common_\w*remap")
_VMALLOC = _names(r"vmalloc\w*", r"vzalloc\w*", r"vrealloc\w*", r"vcalloc\w*")
GET_AREA = _names(r"get_vm_area\w*", r"alloc_vm_area", r"alloc_vmap_area")

_ALLOCATOR = (
    SLAB,
    OWN_USE,
    _PERCPU,
    _PAGES,
    PAGE_FRAGMENTS,
    _DMA,
    VM_INTERNAL,
    _EXECMEM,
    _IOREMAP,
    _VM_MAP_RAM,
    _VMAP,
    _VMALLOC,
    GET_AREA,
)
# Asked in this order: module memory is made by vmalloc, so vmalloc has to come last.
VM_KINDS = (
    ("execmem", _EXECMEM),
    ("ioremap", _IOREMAP),
    ("vm_map_ram", _VM_MAP_RAM),
    ("vmap", _VMAP),
    ("vmalloc", _VMALLOC),
)
VMALLOC_ENTRY = _names(r"vmalloc_node_range")
VMALLOC_PAGES = _names(r"vmalloc_area_node")
VM_ALLOCATORS = frozenset(kind for kind, _ in VM_KINDS)

# --- interrupts -----------------------------------------------------------------------------

# What runs above such a frame was not called by what lies below it. A softirq that runs when
# bottom halves are enabled again is somebody's work too, whoever enabled them.
_INTERRUPT = _names(
    r"(?:asm_)?common_interrupt\w*",
    r"(?:asm_)?sysvec_\w+",
    r"asm_exc_\w+",
    r"asm_call_(?:sysvec_|irq_)?on_stack",
    r"irq_exit(?:_rcu)?",
    r"irq_entries_start",
    r"ret_from_intr",
    r"apic_timer_interrupt",
    r"do_softirq\w*",
    r"handle_softirqs",
    r"do_IRQ",
    r"el[01][ht]?_(?:64_)?(?:irq|fiq|error|sync|da|ia)\w*",
    r"el[01]_interrupt",
    r"call_on_irq_stack",
    r"do_interrupt_handler",
    r"handle_arch_irq",
    # x86 with FRED; system calls come by the entry from user space, and fred_other.
    r"asm_fred_entrypoint_kernel",
    r"fred_(?:entry_from_kernel|extint|hwexc|exc_\w+|sysvec_\w+)",
)


# A session has many stacks and few functions.
@lru_cache(maxsize=1 << 16)
def base_name(symbol: str) -> str:
    """The function as its source names it: without ``.part.0``, ``.lto_priv.0`` and the like, and
    without ``_noprof``.

    No name in C has a dot, so whatever stands behind one was appended by a compiler or linker.
    """
    dot = symbol.find(".", 1)
    return (symbol if dot < 0 else symbol[:dot]).removesuffix(_NOPROF)


@lru_cache(maxsize=1 << 16)
def matches(symbol: str, pattern: re.Pattern[str]) -> bool:
    """Whether the whole of a function's base name matches."""
    return pattern.fullmatch(base_name(symbol)) is not None


def is_kernel_function(frame: Frame, pattern: re.Pattern[str]) -> bool:
    """Whether this is a function of the kernel image whose base name matches."""
    return frame.module is None and frame.symbol is not None and matches(frame.symbol, pattern)


@lru_cache(maxsize=1 << 16)
def is_trampoline(module: str | None, symbol: str | None) -> bool:
    """Whether tracing put this function on the stack, wherever on it."""
    return module in _PSEUDO_MODULES and symbol is not None and matches(symbol, _TRAMPOLINE)


@lru_cache(maxsize=1 << 16)
def is_tracer(module: str | None, symbol: str | None) -> bool:
    """Whether this function runs when a hook is hit."""
    return is_trampoline(module, symbol) or (
        module in _PSEUDO_MODULES and symbol is not None and matches(symbol, _TRACER)
    )


def is_allocator(frame: Frame) -> bool:
    """Whether this is a function of the kernel whose business is to allocate memory."""
    return frame.module is None and frame.symbol is not None and _allocates(frame.symbol)


@lru_cache(maxsize=1 << 16)
def _allocates(symbol: str) -> bool:
    return any(matches(symbol, pattern) for pattern in _ALLOCATOR)


def is_interrupt(frame: Frame) -> bool:
    """Whether this frame is an entry from an interrupt, an exception or into softirqs."""
    return frame.module is None and frame.symbol is not None and _interrupts(frame.symbol)


@lru_cache(maxsize=1 << 16)
def _interrupts(symbol: str) -> bool:
    return matches(symbol, _INTERRUPT)
