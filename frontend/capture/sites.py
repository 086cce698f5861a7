"""From the maps of the tracer to sites: addresses to frames, stacks that are one site merged."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from kleak.capture.reachability import Joined, Resolve, reachability
from kleak.capture.records import LedgerEntry, StackTotal
from kleak.model import Allocation, CycleTally, Frame, Tally, TracedSite
from kleak.stacks import strip_tracer, vmap_kind

# vmap areas end in a page that is not mapped, but for vm_map_ram's (get_vm_area_node() of
# mm/vmalloc.c adds it; VM_NO_GUARD, which no module uses, would not).
_GUARDED = frozenset({"vmalloc", "vmap", "ioremap"})


@dataclass
class _Growing:
    cycles: dict[int, list[int]] = field(default_factory=dict)
    requested: int = 0
    kept: list[Allocation] = field(default_factory=list)
    said: Counter[str] = field(default_factory=Counter)


def build_sites(
    totals: Iterable[StackTotal],
    stacks: Mapping[int, tuple[int, ...]],
    outstanding: Iterable[LedgerEntry],
    resolve: Resolve,
    *,
    cycles: int,
    keep: int,
    holder: Callable[[int], str | None] = lambda address: None,
    kmemleak: Joined | None = None,
) -> tuple[TracedSite, ...]:
    """Merge what the maps hold into sites; most outstanding bytes first.

    ``cycles``: totals of cycles 1 to ``cycles`` count. ``keep``: outstanding allocations kept
    of a site, oldest first. ``holder`` says who has the page at an address. ``kmemleak`` joins
    what it said, None if it was not asked.
    """
    named: dict[tuple[int, int, str], tuple[str, tuple[Frame, ...]]] = {}

    def name(stack: int, cycle: int, family: str) -> tuple[str, tuple[Frame, ...]]:
        key = (stack, cycle, family)
        if key not in named:
            frames = strip_tracer([resolve(address, cycle) for address in stacks[stack]])
            named[key] = (allocator_of(family, frames), frames)
        return named[key]

    sites: dict[tuple[str, tuple[Frame, ...]], _Growing] = {}
    for row in totals:
        site = sites.setdefault(name(row.stack, row.cycle, row.family), _Growing())
        tally = site.cycles.setdefault(row.cycle, [0, 0, 0, 0])
        for place, number in enumerate(
            (row.allocated, row.allocated_bytes, row.freed, row.freed_bytes)
        ):
            tally[place] += number
        site.requested += row.allocated_requested - row.freed_requested
    for entry in sorted(outstanding, key=lambda entry: entry.time_ns):
        known = sites.get(name(entry.stack, entry.cycle, entry.family))
        if known is None:
            continue
        if kmemleak is not None:
            kmemleak.count(entry, known.said)
        if len(known.kept) < keep:
            known.kept.append(
                _allocation(entry, holder(entry.address) if entry.family == "pages" else None)
            )
    built = [
        _site(allocator, frames, growing, cycles) for (allocator, frames), growing in sites.items()
    ]
    if kmemleak is not None:
        left = kmemleak.stacks_left(resolve, cycles)
        built = [
            replace(site, reachability=reachability(growing.said, site.frames, left))
            for site, growing in zip(built, sites.values(), strict=True)
        ]
    return tuple(sorted(built, key=_outstanding_bytes, reverse=True))


def allocator_of(family: str, frames: tuple[Frame, ...]) -> str:
    """Return the name that reports have for a family; areas of vmalloc have one by their stack."""
    if family != "vmap_area":
        return family
    return vmap_kind(frames) or "vmap"


def _allocation(entry: LedgerEntry, holder: str | None) -> Allocation:
    return Allocation(
        entry.address,
        entry.size_bytes,
        entry.requested_bytes,
        entry.time_ns,
        entry.cycle,
        entry.tgid,
        entry.comm,
        holder,
    )


def guard_bytes_of(allocator: str) -> int:
    """Return by how much the size in an event exceeds the memory behind it."""
    return os.sysconf("SC_PAGESIZE") if allocator in _GUARDED else 0


def _site(allocator: str, frames: tuple[Frame, ...], growing: _Growing, cycles: int) -> TracedSite:
    guard_bytes = guard_bytes_of(allocator)
    tallies = []
    for cycle in range(1, cycles + 1):
        allocated, allocated_bytes, freed, freed_bytes = growing.cycles.get(cycle, [0, 0, 0, 0])
        tallies.append(
            CycleTally(
                Tally(allocated, allocated_bytes - allocated * guard_bytes),
                Tally(freed, freed_bytes - freed * guard_bytes),
            )
        )
    return TracedSite(
        allocator,
        frames,
        tuple(tallies),
        # The size that a caller asked vmalloc for is rounded before the event tells it.
        None if guard_bytes else growing.requested,
        tuple(growing.kept),
    )


def _outstanding_bytes(site: TracedSite) -> int:
    return sum(tally.outstanding.size_bytes for tally in site.cycles)
