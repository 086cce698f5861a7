"""The events of each allocator, as this kernel lets one hear of them: one function for each file
of ``bpf/``. docs/adding-an-allocator.md tells how to add one.
"""

from __future__ import annotations

from collections.abc import Callable

from kleak.capture.engine.hooks import (
    Attachment,
    Event,
    Hook,
    Plan,
    arguments,
    offset,
    profiled,
    traced_function,
    tracepoint,
    typed_tracepoint,
)
from kleak.parsers.btf import Btf

_KMALLOC = ("call_site", "ptr", "bytes_req", "bytes_alloc")
_FREE = ("call_site", "ptr")


def add_slab(btf: Btf, plan: Plan) -> None:
    """slab.c: kmalloc, slab caches, and their frees."""
    constants = plan.constants
    for name in ("kfree", "kmem_cache_free"):
        constants.update(arguments(btf, name, _FREE, optional=("s",)))
        ways: tuple[Hook, ...] = (tracepoint(name, f"on_{name}_1", f"on_{name}_2"),)
        # Up to v5.18 the event of kmem_cache_free() comes late; it has told the cache since v6.1.
        if name == "kmem_cache_free" and "ARG_KMEM_CACHE_FREE_S" not in constants:
            constants["FREE_EVENT_MAY_BE_LATE"] = 1
            ways = (*traced_function(btf, Attachment.FENTRY, (name,), copies=2), *ways)
        plan.events.append(Event(name, ways))
    for name in ("kmalloc", "kmalloc_node", "kmem_cache_alloc_node"):
        constants.update(arguments(btf, name, _KMALLOC))
    # Slab cache events tell sizes, or the cache that knows them, or (v6.0) both.
    constants.update(
        arguments(btf, "kmem_cache_alloc", _FREE, optional=("bytes_req", "bytes_alloc", "s"))
    )
    for member in ("size", "object_size", "name", "flags"):
        constants[f"OFF_KMEM_CACHE_{member.upper()}"] = offset(btf, "kmem_cache", member)
    fields = [constants[f"OFF_KMEM_CACHE_{name}"] for name in ("SIZE", "OBJECT_SIZE", "FLAGS")]
    constants["CACHE_FIELDS"] = min(fields)
    constants["CACHE_FIELDS_BYTES"] = max(fields) + 4 - min(fields)
    # Slab flags got numbers in BTF with commit cc61eb851461 ("mm, slab: use an enum to define
    # SLAB_ cache creation flags"), v6.9; before, SLAB_RECLAIM_ACCOUNT was this.
    bit = btf.enumerator("_SLAB_RECLAIM_ACCOUNT")
    constants["SLAB_RECLAIM_ACCOUNT_BIT"] = 0x00020000 if bit is None else 1 << bit
    for name in ("kmalloc", "kmem_cache_alloc"):
        ways = (tracepoint(name, f"on_{name}_1", f"on_{name}_2"),)
        if f"ARG_{name}_s".upper() in constants:
            typed = typed_tracepoint(btf, name, f"on_typed_{name}_1", f"on_typed_{name}_2")
            constants[f"HAS_TYPED_{name}".upper()] = len(typed)
            ways = (*typed, *ways)
        plan.events.append(Event(name, ways))
        # Up to v6.0 an allocation with a NUMA node has an event of its own.
        if f"ARG_{name}_node_ptr".upper() in constants:
            node = f"{name}_node"
            plan.events.append(Event(node, (tracepoint(node, f"on_{node}_1", f"on_{node}_2"),)))


def add_slab_bulk(btf: Btf, plan: Plan) -> None:
    """slab_bulk.c: objects by the array."""
    name = "kmem_cache_free_bulk"
    ways = traced_function(btf, Attachment.FENTRY, (name,), copies=2)
    if btf.has_function(name):
        ways += (Hook(Attachment.KPROBE, name, (f"probe_{name}",)),)
    without = "memory freed in bulk has no free event here and may look outstanding"
    plan.events.append(Event(name, ways, without))
    ways = traced_function(btf, Attachment.FEXIT, profiled("kmem_cache_alloc_bulk"))
    plan.events.append(
        Event("kmem_cache_alloc_bulk", ways, "objects allocated in bulk cannot be seen here")
    )


def add_slab_nolock(btf: Btf, plan: Plan) -> None:
    """slab_nolock.c: what is allocated in any context, without a lock, and with no event."""
    allocated = traced_function(
        btf, Attachment.FEXIT, ("kmalloc_nolock_noprof", "_kmalloc_nolock_noprof")
    )
    if not allocated:
        return
    plan.constants["HAS_KMALLOC_NOLOCK"] = 1
    without = "objects of kmalloc_nolock() cannot be seen here"
    freed = traced_function(btf, Attachment.FENTRY, ("kfree_nolock",), copies=2)
    plan.events += [
        Event("kfree_nolock", freed, without),
        Event("kmalloc_nolock", allocated, without),
    ]


def add_krealloc(btf: Btf, plan: Plan) -> None:
    """krealloc.c: what changes its size and stays."""
    ways = traced_function(
        btf, Attachment.FEXIT, ("krealloc_node_align_noprof", *profiled("krealloc"))
    )
    plan.events.append(
        Event(
            "krealloc",
            ways,
            "sizes do not follow what krealloc() resizes in place",
            hides_call_sites=True,
        )
    )


def add_rcu(btf: Btf, plan: Plan) -> None:
    """rcu.c: kfree_rcu() and its relatives."""
    name, nolock = "kvfree_call_rcu", "kfree_call_rcu_nolock"
    probe = "probe_kvfree_call_rcu"
    ways = traced_function(btf, Attachment.FENTRY, (name,), copies=2)
    if btf.has_function(name):
        ways += (Hook(Attachment.KPROBE, name, (probe,)),)
    without = "memory given to kfree_rcu() has no free event here and may look outstanding"
    plan.events.append(Event(name, ways, without))
    if btf.has_function(nolock):
        plan.constants["HAS_KFREE_CALL_RCU_NOLOCK"] = 1
        ways = traced_function(btf, Attachment.FENTRY, (nolock,), copies=2)
        ways += (Hook(Attachment.KPROBE, nolock, (probe,)),)
        plan.events.append(Event(nolock, ways, without))


def add_skb(btf: Btf, plan: Plan) -> None:
    """skb.c: heads of socket buffers that go into a cache of the network core."""
    plan.constants.update(arguments(btf, "consume_skb", ("skb",)))
    size = btf.struct_size("sk_buff")
    if size is None:
        return
    plan.constants["SIZE_SK_BUFF"] = size
    without = "heads of socket buffers may look outstanding"
    name = "napi_skb_cache_put"
    if btf.has_function(name):
        ways = traced_function(btf, Attachment.FENTRY, (name,), copies=2)
        ways += (Hook(Attachment.KPROBE, name, ("probe_skb_head",)),)
        plan.events.append(Event(name, ways, without))
        return
    if "ARG_CONSUME_SKB_SKB" in plan.constants:
        consume = tracepoint("consume_skb", "on_consume_skb_1", "on_consume_skb_2")
        plan.events.append(Event("consume_skb", (consume,), without))
    for name in ("__kfree_skb_defer", "napi_skb_free_stolen_head"):
        if btf.has_function(name):
            ways = traced_function(btf, Attachment.FENTRY, (name,), copies=2)
            ways += (Hook(Attachment.KPROBE, name, ("probe_skb_head",)),)
            plan.events.append(Event(name, ways, without))


def add_vmalloc(btf: Btf, plan: Plan) -> None:
    """vmalloc.c: vmap areas of all kinds."""
    without = "vmalloc, vmap and ioremap cannot be traced on this kernel"
    constants = plan.constants
    constants.update(arguments(btf, "alloc_vmap_area", ("addr", "size", "failed")))
    constants.update(arguments(btf, "free_vmap_area_noflush", ("va_start",)))
    allocated, freed = "alloc_vmap_area", "free_vmap_area_noflush"
    if "ARG_ALLOC_VMAP_AREA_ADDR" in constants:
        programs = ("on_free_vmap_area_1", "on_free_vmap_area_2")
        plan.events += [
            Event(allocated, (tracepoint(allocated, "on_alloc_vmap_area"),)),
            Event(freed, (tracepoint(freed, *programs),)),
        ]
        return
    constants["OFF_VMAP_AREA_VA_START"] = offset(btf, "vmap_area", "va_start")
    constants["OFF_VMAP_AREA_VA_END"] = offset(btf, "vmap_area", "va_end")
    plan.events += [
        Event(
            allocated,
            (
                *traced_function(btf, Attachment.FEXIT, (allocated,)),
                Hook(Attachment.KRETPROBE, allocated, (f"probe_return_{allocated}",)),
            ),
            without,
        ),
        Event(
            freed,
            (
                *traced_function(btf, Attachment.FENTRY, (freed,), copies=2),
                Hook(Attachment.KPROBE, freed, (f"probe_{freed}",)),
            ),
            without,
        ),
    ]


def add_percpu(btf: Btf, plan: Plan) -> None:
    """percpu.c: alloc_percpu() and its relatives."""
    allocated, freed = "percpu_alloc_percpu", "percpu_free_percpu"
    plan.constants.update(arguments(btf, allocated, ("size", "ptr"), optional=("bytes_alloc",)))
    plan.constants.update(arguments(btf, freed, ("ptr",)))
    without = "per-CPU memory cannot be traced on this kernel"
    if "ARG_PERCPU_ALLOC_PERCPU_PTR" in plan.constants:
        ways = (
            tracepoint(allocated, "on_percpu_alloc"),
            tracepoint(freed, "on_percpu_free_1", "on_percpu_free_2"),
        )
        plan.events += [Event(allocated, ways[:1], without), Event(freed, ways[1:], without)]


def add_dma(btf: Btf, plan: Plan) -> None:
    """dma.c: dma_alloc_coherent() and its relatives."""
    without = "DMA memory is seen as what lies below it only: pages or areas"
    plan.constants.update(arguments(btf, "dma_alloc", ("virt_addr", "size")))
    plan.constants.update(arguments(btf, "dma_free", ("virt_addr",)))
    if "ARG_DMA_ALLOC_VIRT_ADDR" in plan.constants:
        plan.events += [
            Event("dma_alloc", (tracepoint("dma_alloc", "on_dma_alloc"),), without),
            Event("dma_free", (tracepoint("dma_free", "on_dma_free_1", "on_dma_free_2"),), without),
        ]
        return
    allocated = traced_function(btf, Attachment.FEXIT, ("dma_alloc_attrs",))
    freed = traced_function(btf, Attachment.FENTRY, ("dma_free_attrs",), copies=2)
    plan.events += [Event("dma_alloc", allocated, without), Event("dma_free", freed, without)]


def add_dma_pool(btf: Btf, plan: Plan) -> None:
    """dma_pool.c: objects of DMA pools."""
    size = btf.member_offset("dma_pool", "size")
    if size is None:  # CONFIG_HAS_DMA is off, and there are none
        return
    plan.constants["OFF_DMA_POOL_SIZE"] = size
    without = "objects of DMA pools are seen as the blocks below them only"
    allocated = traced_function(btf, Attachment.FEXIT, ("dma_pool_alloc",))
    freed = traced_function(btf, Attachment.FENTRY, ("dma_pool_free",), copies=2)
    plan.events += [
        Event("dma_pool_alloc", allocated, without),
        Event("dma_pool_free", freed, without),
    ]


ALLOCATORS: tuple[Callable[[Btf, Plan], None], ...] = (
    add_slab,
    add_slab_bulk,
    add_slab_nolock,
    add_krealloc,
    add_rcu,
    add_skb,
    add_vmalloc,
    add_percpu,
    add_dma,
    add_dma_pool,
)
