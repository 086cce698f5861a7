"""What the frames of a stack are: the tracer's, the allocator's, an interrupt's, or the rest.

Functions over tuples of :class:`Frame`, innermost first, without state, so that capture may use
them on the stacks it builds and analysis on the stacks it is given. Names of functions that may
be missing on a kernel are listed all the same: a name that does not occur matches nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

from kleak.model.session import Frame, Target

Frames = tuple[Frame, ...]

# What the compiler and the kernel's allocation profiling append to a function's name. The
# latter: commit 7bd230a26648 ("mm/slab: enable slab allocation tagging for kmalloc and friends").
_SUFFIX = re.compile(r"(?:\.(?:part|constprop|isra|cold|llvm)(?:\.\w+)*)+$")
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

_SLAB = _names(
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
_OWN_USE = _names(
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
)
# A page of these is shared by many, and kept until the next one is needed.
_PAGE_FRAGMENTS = _names(r"page_frag_(?:alloc|cache_refill)\w*")
_DMA = _names(
    r"dmam?_alloc_\w+",
    r"dma_direct_alloc\w*",
    r"iommu_dma_alloc\w*",
    r"dmam?_pool_(?:z?alloc|create)\w*",
    r"pool_alloc_page",
)
# Inside vmalloc and vmap: what these take from the slab allocator is their own bookkeeping.
_VM_INTERNAL = _names(
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
_GET_AREA = _names(r"get_vm_area\w*", r"alloc_vm_area", r"alloc_vmap_area")

_ALLOCATOR = (
    _SLAB,
    _OWN_USE,
    _PERCPU,
    _PAGES,
    _PAGE_FRAGMENTS,
    _DMA,
    _VM_INTERNAL,
    _EXECMEM,
    _IOREMAP,
    _VM_MAP_RAM,
    _VMAP,
    _VMALLOC,
    _GET_AREA,
)
# Asked in this order: module memory is made by vmalloc, so vmalloc has to come last.
_VM_KINDS = (
    ("execmem", _EXECMEM),
    ("ioremap", _IOREMAP),
    ("vm_map_ram", _VM_MAP_RAM),
    ("vmap", _VMAP),
    ("vmalloc", _VMALLOC),
)
_VMALLOC_ENTRY = _names(r"vmalloc_node_range")
_VMALLOC_PAGES = _names(r"vmalloc_area_node")
VM_ALLOCATORS = frozenset(kind for kind, _ in _VM_KINDS)

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
)


# A session has many stacks and few functions.
@lru_cache(maxsize=1 << 16)
def base_name(symbol: str) -> str:
    """The function as its source names it: without ``.part.0`` and the like and ``_noprof``."""
    name = _SUFFIX.sub("", symbol)
    return name[: -len(_NOPROF)] if name.endswith(_NOPROF) else name


@lru_cache(maxsize=1 << 16)
def _matches(symbol: str, pattern: re.Pattern[str]) -> bool:
    return pattern.fullmatch(base_name(symbol)) is not None


def _is(frame: Frame, pattern: re.Pattern[str]) -> bool:
    return frame.module is None and frame.symbol is not None and _matches(frame.symbol, pattern)


@lru_cache(maxsize=1 << 16)
def _is_trampoline(module: str | None, symbol: str | None) -> bool:
    return module in _PSEUDO_MODULES and symbol is not None and _matches(symbol, _TRAMPOLINE)


@lru_cache(maxsize=1 << 16)
def _is_tracer(module: str | None, symbol: str | None) -> bool:
    return _is_trampoline(module, symbol) or (
        module in _PSEUDO_MODULES and symbol is not None and _matches(symbol, _TRACER)
    )


def is_allocator(frame: Frame) -> bool:
    """Whether this is a function of the kernel whose business is to allocate memory."""
    return frame.module is None and frame.symbol is not None and _allocates(frame.symbol)


@lru_cache(maxsize=1 << 16)
def _allocates(symbol: str) -> bool:
    return any(_matches(symbol, pattern) for pattern in _ALLOCATOR)


def strip_tracer(frames: Sequence[Frame]) -> Frames:
    """The stack without the frames that tracing put there.

    Their number varies (kernel-dependent, and with how many programs are attached), so they go
    by name: from the innermost end all up to the last of the tracer's, unresolvable ones in
    front included (a JIT-compiled program has no name where bpf_jit_kallsyms is off); and
    trampolines wherever they are, since they also stand behind a function that is hooked while
    it allocates. One that was made after the symbols were read has no name: nothing else that has
    none stands between allocators.
    """
    start = 0
    for position, frame in enumerate(frames):
        if _is_tracer(frame.module, frame.symbol):
            start = position + 1
        elif _is_unnamed(frame):
            continue
        else:
            # An allocator calls no unnamed code but a hook.
            if is_allocator(frame):
                start = position
            break
    return tuple(
        [
            frame
            for position, frame in enumerate(frames[start:], start)
            if not _is_trampoline(frame.module, frame.symbol)
            and not (frame.symbol is None and _is_unnamed_hook(frames, position))
        ]
    )


def _is_unnamed(frame: Frame) -> bool:
    return frame.module is None and frame.symbol is None


def _is_unnamed_hook(frames: Sequence[Frame], position: int) -> bool:
    if not _is_unnamed(frames[position]) or not 0 < position < len(frames) - 1:
        return False
    return is_allocator(frames[position - 1]) and is_allocator(frames[position + 1])


def split_allocator(frames: Sequence[Frame]) -> tuple[Frames, Frames]:
    """The allocator's own frames at the innermost end, and the rest, which may be empty."""
    for position, frame in enumerate(frames):
        if not is_allocator(frame):
            return tuple(frames[:position]), tuple(frames[position:])
    return tuple(frames), ()


def is_page_fragment(frames: Sequence[Frame]) -> bool:
    """Whether this is a page of a cache of fragments (page_frag_alloc())."""
    return any(_is(frame, _PAGE_FRAGMENTS) for frame in split_allocator(frames)[0])


def vmap_kind(frames: Sequence[Frame]) -> str | None:
    """Which interface made the area of an ``alloc_vmap_area`` event.

    "vmalloc", "vmap", "ioremap", "vm_map_ram", or "execmem" for the memory of module and BPF
    text; "vmap" for a bare get_vm_area(); None where the stack has no function of these.
    """
    allocator_frames, _ = split_allocator(frames)
    for kind, pattern in _VM_KINDS:
        if any(_is(frame, pattern) for frame in allocator_frames):
            return kind
    return "vmap" if any(_is(frame, _GET_AREA) for frame in allocator_frames) else None


def is_vmalloc_bookkeeping(frames: Sequence[Frame], allocator: str) -> bool:
    """Whether vmalloc or vmap allocated this for its own use while it made an area.

    One vmalloc leaves up to four outstanding items: the area, its vm_struct (slab, from
    ``__get_vm_area_node``), its vmap_area (slab, from ``alloc_vmap_area``) and the array of its
    pages (slab, or a nested vmalloc beyond 512 pages, from ``__vmalloc_area_node``). All but the
    first are this.
    """
    allocator_frames, _ = split_allocator(frames)
    if allocator in VM_ALLOCATORS:
        entries = sum(_is(frame, _VMALLOC_ENTRY) for frame in allocator_frames)
        return entries > 1 or any(_is(frame, _VMALLOC_PAGES) for frame in allocator_frames)
    for frame in allocator_frames:
        if not _is(frame, _SLAB):
            return _is(frame, _VM_INTERNAL)
    return False


def is_bookkeeping(frames: Sequence[Frame], allocator: str) -> bool:
    """Whether any allocator took this for its own use, vmalloc's bookkeeping included.

    The others are the slab allocator's vectors and sheaves, kmemleak's records and the per-CPU
    allocator's chunks: they belong to the allocator, whoever happened to call it.
    """
    allocator_frames, _ = split_allocator(frames)
    return is_vmalloc_bookkeeping(frames, allocator) or any(
        _is(frame, _OWN_USE) for frame in allocator_frames
    )


def is_interrupt(frame: Frame) -> bool:
    """Whether this frame is an entry from an interrupt, an exception or into softirqs."""
    return frame.module is None and frame.symbol is not None and _interrupts(frame.symbol)


@lru_cache(maxsize=1 << 16)
def _interrupts(symbol: str) -> bool:
    return _matches(symbol, _INTERRUPT)


def before_interrupt(frames: Sequence[Frame]) -> Frames:
    """The stack down to the first entry from an interrupt, with it: beyond lies what was hit."""
    for position, frame in enumerate(frames):
        if is_interrupt(frame):
            return tuple(frames[: position + 1])
    return tuple(frames)  # the same one, if it is a tuple


def before_dispatch(frames: Frames, target: Target) -> Frames:
    """A stack that before_interrupt() gave, without how the kernel came to call the target, where
    an interrupt made it.

    A timer of one CPU may expire on another one, by other functions (timer migration: commit
    7ee988770326 ("timers: Implement the hierarchical pull model"), v6.9), and an interrupt's
    handler may run in a thread. Stacks without an interrupt stay as they are: who called is news.
    """
    if frames and is_interrupt(frames[-1]):
        for position in reversed(range(len(frames))):
            if in_scope(frames[position], target):
                return frames[: position + 1]
    return frames


def in_scope(frame: Frame, target: Target) -> bool:
    """Whether a frame belongs to the target.

    A target of kind "module" is its name (``-`` and ``_`` are the same to the kernel), or several
    with commas between; one of kind "symbols" is one or more globs, separated by commas or
    blanks, over the kernel's text; what stands in brackets is a module that was loaded already.
    """
    if frame.module is not None:
        return _is_module_of(frame.module, target.kind, target.name)
    return (
        target.kind != "module"
        and frame.symbol is not None
        and _is_symbol_of(frame.symbol, target.name)
    )


@lru_cache(maxsize=1 << 16)
def _is_symbol_of(symbol: str, globs: str) -> bool:
    return any(
        fnmatchcase(symbol, glob) or fnmatchcase(base_name(symbol), glob)
        for glob in _split(globs)
        if not _is_bracketed(glob)
    )


@lru_cache(maxsize=1 << 10)
def _is_module_of(module: str, kind: str, target: str) -> bool:
    names = _split(target)
    if kind != "module":
        names = [name[1:-1] for name in names if _is_bracketed(name)]
    return any(_same_module(module, name) for name in names)


def _split(names: str) -> list[str]:
    return [name for name in re.split(r"[,\s]+", names) if name]


def _is_bracketed(name: str) -> bool:
    return name.startswith("[") and name.endswith("]")


def _same_module(one: str, other: str) -> bool:
    return one.replace("-", "_") == other.replace("-", "_")


def only_interrupted(frames: Sequence[Frame], target: Target) -> bool:
    """Whether all frames of the target lie beyond an interrupt, which then did the allocating.

    False for a stack without any frame of the target: nothing can be said of it.
    """
    interrupted = False
    for frame in frames:
        if in_scope(frame, target):
            return interrupted
        interrupted = interrupted or is_interrupt(frame)
    return False
