"""From the maps of the tracer to sites: addresses to frames, stacks that are one site merged."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from kleak.capture.reachability import Joined, Resolve, reachability
from kleak.capture.records import LedgerEntry, StackTotal
from kleak.capture.sampling import is_call_site
from kleak.model import Allocation, CycleTally, Frame, StackSample, Tally, TracedSite
from kleak.stacks import Frames, strip_tracer, vmap_kind

# vmap areas end in a page that is not mapped, but for vm_map_ram's (get_vm_area_node() of
# mm/vmalloc.c adds it; VM_NO_GUARD, which no module uses, would not).
_GUARDED = frozenset({"vmalloc", "vmap", "ioremap"})


@dataclass(frozen=True, slots=True)
class _Place:
    """What is one site: an allocator with a stack, or with a call site if ``counted`` by that."""

    allocator: str
    frames: Frames
    counted: bool = False


@dataclass
class _Growing:
    cycles: dict[int, list[int]] = field(default_factory=dict)
    # Of a call site: outstanding and allocated objects by the stack that was walked for them.
    walked: dict[Frames, list[int]] = field(default_factory=dict)
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
    holder: Callable[[int, int], str | None] = lambda address, tgid: None,
    kmemleak: Joined | None = None,
    call_sites: Mapping[int, int] | None = None,
    name_of: Callable[[int], str] = lambda tgid: "",
) -> tuple[TracedSite, ...]:
    """Merge what the maps hold into sites; most outstanding bytes first.

    ``cycles``: totals of cycles 1 to ``cycles`` count. ``keep``: outstanding allocations kept
    of a site, oldest first. ``holder`` says who has the page at an address that a process (its
    tgid) allocated. ``kmemleak`` joins what it said, None if it was not asked. ``call_sites``:
    where stacks are sampled, the call sites of those that were walked; what has one is a site
    together with all else from there. ``name_of`` names a process whose name was not noted.
    """
    named: dict[tuple[int, int, str], tuple[_Place, Frames]] = {}

    def name(stack: int, cycle: int, family: str) -> tuple[_Place, Frames]:
        """Where an allocation belongs, and its stack, which is empty if it was not walked."""
        key = (stack, cycle, family)
        if key not in named:
            call_site = 0
            if call_sites is not None:
                call_site = stack if is_call_site(stack) else call_sites.get(stack, 0)
            frames: Frames = ()
            if stack != call_site:
                frames = strip_tracer([resolve(address, cycle) for address in stacks[stack]])
            if call_site:
                place = _Place(family, (resolve(call_site, cycle),), counted=True)
            else:
                place = _Place(allocator_of(family, frames), frames)
            named[key] = (place, frames)
        return named[key]

    sites: dict[_Place, _Growing] = {}
    for row in totals:
        place, frames = name(row.stack, row.cycle, row.family)
        site = sites.setdefault(place, _Growing())
        if place.counted and frames:
            known = site.walked.setdefault(frames, [0, 0])
            known[0] += row.outstanding
            known[1] += row.allocated
        tally = site.cycles.setdefault(row.cycle, [0, 0, 0, 0])
        for column, number in enumerate(
            (row.allocated, row.allocated_bytes, row.freed, row.freed_bytes)
        ):
            tally[column] += number
        site.requested += row.allocated_requested - row.freed_requested
    for entry in sorted(outstanding, key=lambda entry: entry.time_ns):
        found = sites.get(name(entry.stack, entry.cycle, entry.family)[0])
        if found is None:
            continue
        if kmemleak is not None:
            kmemleak.count(entry, found.said)
        if len(found.kept) < keep:
            found.kept.append(
                _allocation(
                    entry,
                    entry.comm or name_of(entry.tgid),
                    holder(entry.address, entry.tgid) if entry.family == "pages" else None,
                )
            )
    built: list[TracedSite] = []
    shown: set[tuple[str, Frames]] = set()
    for place, growing in sites.items():
        frames, sample = place.frames, None
        if place.counted:
            frames, sample = _sample(place, growing)
            # Where the compiler left the call site no frame, two of them may have one stack.
            if (place.allocator, frames) in shown:
                frames, sample = place.frames, replace(sample, shown=0)
        shown.add((place.allocator, frames))
        built.append(_site(place.allocator, frames, sample, growing, cycles))
    if kmemleak is not None:
        left = kmemleak.stacks_left(resolve, cycles)
        built = [
            replace(site, reachability=reachability(growing.said, site.frames, left))
            for site, growing in zip(built, sites.values(), strict=True)
        ]
    return tuple(sorted(built, key=_outstanding_bytes, reverse=True))


def _sample(place: _Place, growing: _Growing) -> tuple[Frames, StackSample]:
    """The stack to show of a call site, which most of its objects have, and what that rests on."""
    outstanding = [count for count, _ in growing.walked.values() if count > 0]
    most = max(growing.walked, key=lambda frames: growing.walked[frames], default=None)
    sample = StackSample(
        place.frames[0],
        sum(outstanding),
        len(outstanding),
        0 if most is None else max(0, growing.walked[most][0]),
    )
    return most or place.frames, sample


def allocator_of(family: str, frames: tuple[Frame, ...]) -> str:
    """Return the name that reports have for a family; areas of vmalloc have one by their stack."""
    if family != "vmap_area":
        return family
    return vmap_kind(frames) or "vmap"


def _allocation(entry: LedgerEntry, comm: str, holder: str | None) -> Allocation:
    return Allocation(
        entry.address,
        entry.size_bytes,
        entry.requested_bytes,
        entry.time_ns,
        entry.cycle,
        entry.tgid,
        comm,
        holder,
    )


def guard_bytes_of(allocator: str) -> int:
    """Return by how much the size in an event exceeds the memory behind it."""
    return os.sysconf("SC_PAGESIZE") if allocator in _GUARDED else 0


def _site(
    allocator: str, frames: Frames, stacks: StackSample | None, growing: _Growing, cycles: int
) -> TracedSite:
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
        stacks=stacks,
    )


def _outstanding_bytes(site: TracedSite) -> int:
    return sum(tally.outstanding.size_bytes for tally in site.cycles)
