"""Small builders for sessions shaped like captured ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from kleak.model.session import (
    Allocation,
    Answer,
    Cycle,
    CycleTally,
    Frame,
    Kernel,
    Session,
    Source,
    Tally,
    Target,
    TracedSite,
    Trust,
    VmallocRegion,
)

MODULE = "leaky"
_addresses = count(0xFF16DA7F83215600, 0x1000)


def frame(text: str) -> Frame:
    """``symbol+0x1c [module] file.c:12``; offset, module and source may be missing."""
    words = text.split()
    symbol, _, offset = words[0].partition("+")
    module = next((word[1:-1] for word in words if word.startswith("[")), None)
    place = next((word for word in words[1:] if ":" in word), None)
    source = None
    if place is not None:
        file, _, line = place.rpartition(":")
        source = Source(file, int(line))
    return Frame(module, symbol or None, int(offset or "0x1c", 16), source)


def stack(text: str) -> tuple[Frame, ...]:
    """Frames separated by ``<-``, innermost first."""
    return tuple(frame(part.strip()) for part in text.split("<-"))


LEAK = stack(
    "__kmalloc_cache_noprof+0x11e <- leak_it+0x1c [leaky] leaky.c:12 <- "
    "leaky_init+0x40 [leaky] leaky.c:30 <- do_one_initcall+0x58 <- do_init_module+0x60 <- "
    "__do_sys_finit_module+0x200 <- do_syscall_64+0x82 <- entry_SYSCALL_64_after_hwframe+0x76"
)
KERNFS = stack(
    "kmem_cache_alloc_noprof+0x2c0 <- __kernfs_new_node+0x60 <- kernfs_new_node+0x50 <- "
    "kernfs_create_dir_ns+0x30 <- sysfs_create_dir_ns+0x9b <- kobject_add_internal+0xa0 <- "
    "kobject_add+0x80 <- device_add+0x100 <- leaky_init+0x60 [leaky] <- do_one_initcall+0x58"
)


def site(
    kept: Sequence[int],
    *,
    frames: tuple[Frame, ...] = LEAK,
    allocator: str = "kmalloc",
    allocated: Sequence[int] | None = None,
    object_bytes: int = 128,
    sampled: int = 0,
) -> TracedSite:
    """A site that kept so many objects per cycle, and allocated no more unless said.

    ``sampled`` of the kept allocations come with an address.
    """
    made = kept if allocated is None else allocated
    cycles = tuple(
        CycleTally(
            Tally(total, total * object_bytes),
            Tally(total - left, (total - left) * object_bytes),
        )
        for total, left in zip(made, kept, strict=True)
    )
    samples = tuple(
        Allocation(next(_addresses), object_bytes, object_bytes - 5, 1000 + i, 1, 331, "insmod")
        for i in range(sampled)
    )
    return TracedSite(allocator, frames, cycles, sum(kept) * (object_bytes - 5), samples)


def session(
    *sites: TracedSite,
    cycles: int | None = None,
    target: Target | None = None,
    lost: dict[str, int] | None = None,
    regions: Sequence[VmallocRegion] | None = (),
    failures: dict[int, str] | None = None,
    still_loaded: bool = False,
) -> Session:
    """A session over ``sites``, with as many cycles as these have."""
    number = cycles if cycles is not None else len(sites[0].cycles)
    return Session(
        kernel=Kernel("6.12.117+deb12-amd64", "x86_64"),
        target=target or Target("module", MODULE, "/lib/modules/leaky.ko"),
        cycles=tuple(
            Cycle(
                index,
                index * 1_000_000,
                None if still_loaded and index == number else index * 1_000_000 + 500_000,
                (failures or {}).get(index),
            )
            for index in range(1, number + 1)
        ),
        sites=sites,
        trust=Trust(lost=lost or {}),
        vmalloc_regions=None if regions is None else tuple(regions),
    )


def regions_of(traced: TracedSite, kind: str = "vmalloc") -> tuple[VmallocRegion, ...]:
    """/proc/vmallocinfo as it is while all kept allocations of a site are mapped."""
    return tuple(
        VmallocRegion(kept.address, kept.size_bytes, None, kind, None) for kept in traced.kept
    )


def told(traced: Session, *said: tuple[str, str]) -> Session:
    """The session with answers of witnesses: name and text."""
    answers = tuple(Answer(name, i, text) for i, (name, text) in enumerate(said))
    return replace(traced, circumstances=replace(traced.circumstances, answers=answers))
