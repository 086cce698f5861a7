"""Stacks without the tracer's frames, cut where the allocator's end, or where an interrupt began.

Functions over tuples of :class:`Frame`, innermost first, without state, so that capture may use
them on the stacks it builds and analysis on the stacks it is given.
"""

from __future__ import annotations

from collections.abc import Sequence

from kleak.frames.names import (
    ENTRY,
    GET_AREA,
    OWN_USE,
    PAGE_FRAGMENTS,
    SLAB,
    VM_ALLOCATORS,
    VM_INTERNAL,
    VM_KINDS,
    VMALLOC_ENTRY,
    VMALLOC_PAGES,
    is_allocator,
    is_interrupt,
    is_kernel_function,
    is_tracer,
    is_trampoline,
)
from kleak.model.session import Frame

Frames = tuple[Frame, ...]

# Frames between an allocator's entry and what it allocates for itself. Reclaim, which runs
# anybody's code below an allocation, is deeper.
_DEEPEST_OWN_USE = 5


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
        if is_tracer(frame.module, frame.symbol):
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
            if not is_trampoline(frame.module, frame.symbol)
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
    return any(is_kernel_function(frame, PAGE_FRAGMENTS) for frame in split_allocator(frames)[0])


def vmap_kind(frames: Sequence[Frame]) -> str | None:
    """Which interface made the area of an ``alloc_vmap_area`` event.

    "vmalloc", "vmap", "ioremap", "vm_map_ram", or "execmem" for the memory of module and BPF
    text; "vmap" for a bare get_vm_area(); None where the stack has no function of these.
    """
    allocator_frames, _ = split_allocator(frames)
    for kind, pattern in VM_KINDS:
        if any(is_kernel_function(frame, pattern) for frame in allocator_frames):
            return kind
    return (
        "vmap" if any(is_kernel_function(frame, GET_AREA) for frame in allocator_frames) else None
    )


def is_vmalloc_bookkeeping(frames: Sequence[Frame], allocator: str) -> bool:
    """Whether vmalloc or vmap allocated this for its own use while it made an area.

    One vmalloc leaves up to four outstanding items: the area, its vm_struct (slab, from
    ``__get_vm_area_node``), its vmap_area (slab, from ``alloc_vmap_area``) and the array of its
    pages (slab, or a nested vmalloc beyond 512 pages, from ``__vmalloc_area_node``). All but the
    first are this.
    """
    allocator_frames, _ = split_allocator(frames)
    if allocator in VM_ALLOCATORS:
        entries = sum(is_kernel_function(frame, VMALLOC_ENTRY) for frame in allocator_frames)
        return entries > 1 or any(
            is_kernel_function(frame, VMALLOC_PAGES) for frame in allocator_frames
        )
    for frame in allocator_frames:
        if not is_kernel_function(frame, SLAB):
            return is_kernel_function(frame, VM_INTERNAL)
    return False


def is_bookkeeping(frames: Sequence[Frame], allocator: str) -> bool:
    """Whether any allocator took this for its own use, vmalloc's bookkeeping included.

    The others are the slab allocator's vectors and sheaves, kmemleak's records and the per-CPU
    allocator's chunks: they belong to the allocator, whoever happened to call it. What a kernel
    calls the functions that make them is not known of all kernels: see _is_nested().
    """
    if is_vmalloc_bookkeeping(frames, allocator) or _is_nested(frames):
        return True
    allocator_frames, _ = split_allocator(frames)
    return any(is_kernel_function(frame, OWN_USE) for frame in allocator_frames)


def _is_nested(frames: Sequence[Frame]) -> bool:
    """Whether an allocator made this allocation while it served another one.

    Then an entry of an allocator stands on the stack twice, with functions of the kernel between:
    whatever these are called, and whoever was served.
    """
    between = 0
    for frame in frames:
        if is_kernel_function(frame, ENTRY):
            if between:
                return True
        elif frame is frames[0] or frame.module is not None or is_interrupt(frame):
            return False
        else:
            between += 1
            if between > _DEEPEST_OWN_USE:
                return False
    return False


def before_interrupt(frames: Sequence[Frame]) -> Frames:
    """The stack down to the first entry from an interrupt, with it: beyond lies what was hit."""
    for position, frame in enumerate(frames):
        if is_interrupt(frame):
            return tuple(frames[: position + 1])
    return tuple(frames)  # the same one, if it is a tuple
