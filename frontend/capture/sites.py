"""From the maps of the tracer to sites: addresses to frames, stacks that are one site merged."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from kleak.capture.reachability import Joined, Resolve, reachability
from kleak.capture.records import LedgerEntry, StackTotal
from kleak.model import Allocation, CycleTally, Frame, Tally, TracedSite
from kleak.stacks import strip_tracer, vmap_kind

# vmap areas end in a page that is not mapped, but for vm_map_ram's (get_vm_area_node() of
# mm/vmalloc.c adds it; VM_NO_GUARD, which no module uses, would not).
_GUARDED = frozenset({"vmalloc", "vmap", "ioremap"})


SITES_KEPT_WHOLE = 50
"""So many times what is kept of one site is kept of all: where there are more, less of each."""


class Ledger(Protocol):
    """What the programs wrote; :class:`kleak.capture.tracer.Tracer` reads it."""

    def totals(self) -> Sequence[StackTotal]:
        """All that was allocated and freed, by stack and cycle."""

    def stacks(self) -> Mapping[int, tuple[int, ...]]:
        """Addresses of the stacks, by their keys."""

    def outstanding(self) -> Iterator[LedgerEntry]:
        """What is outstanding, in no order."""

    def oldest(self, keep: int, before_ns: int) -> Iterator[LedgerEntry]:
        """The oldest of each stack and family that were made before ``before_ns``."""


@dataclass
class _Growing:
    allocator: str
    frames: tuple[Frame, ...]
    cycles: dict[int, list[int]] = field(default_factory=dict)
    requested: int = 0
    kept: list[LedgerEntry] = field(default_factory=list)
    said: Counter[str] = field(default_factory=Counter)


class _Sites:
    """The sites so far, found by stack, cycle and family.

    Looking at frames is what costs: the same ones, seen in another cycle, are not looked at again.
    """

    def __init__(self, stacks: Mapping[int, tuple[int, ...]], resolve: Resolve) -> None:
        self._stacks = stacks
        self._resolve = resolve
        self._places: dict[tuple[int, int], int] = {}
        self._frames: dict[Frame, int] = {}
        self._by_row: dict[tuple[int, int, str], _Growing] = {}
        self._by_places: dict[tuple[str, tuple[int, ...]], _Growing] = {}
        self._by_frames: dict[tuple[str, tuple[Frame, ...]], _Growing] = {}

    def __iter__(self) -> Iterator[_Growing]:
        return iter(self._by_frames.values())

    def find(self, stack: int, cycle: int, family: str) -> _Growing | None:
        """The site of these, if there was a row of totals of them."""
        return self._by_row.get((stack, cycle, family))

    def add(self, stack: int, cycle: int, family: str) -> _Growing:
        """The site of these, a new one if need be."""
        row = (stack, cycle, family)
        site = self._by_row.get(row)
        if site is None:
            site = self._by_row[row] = self._of_places(stack, cycle, family)
        return site

    def _of_places(self, stack: int, cycle: int, family: str) -> _Growing:
        known, stack_of = self._places, self._stacks[stack]
        places = tuple([known.get((a, cycle)) or self._place(a, cycle) for a in stack_of])
        site = self._by_places.get((family, places))
        if site is None:
            frames = strip_tracer([self._resolve(address, cycle) for address in stack_of])
            allocator = allocator_of(family, frames)
            site = self._by_frames.setdefault((allocator, frames), _Growing(allocator, frames))
            self._by_places[family, places] = site
        return site

    def _place(self, address: int, cycle: int) -> int:
        """A number, above 0, for each different frame."""
        frame = self._resolve(address, cycle)
        place = self._frames.setdefault(frame, len(self._frames) + 1)
        self._places[address, cycle] = place
        return place


def build_sites(
    ledger: Ledger,
    resolve: Resolve,
    *,
    cycles: int,
    keep: int,
    holder: Callable[[int, int], str | None] = lambda address, tgid: None,
    kmemleak: Joined | None = None,
) -> tuple[TracedSite, ...]:
    """Merge what the maps hold into sites; most outstanding bytes first.

    ``cycles``: totals of cycles 1 to ``cycles`` count. ``keep``: outstanding allocations kept
    of a site, oldest first; fewer where there are very many sites. ``holder`` says who has the
    page at an address that a process (its tgid) allocated. ``kmemleak`` joins what it said, None
    if it was not asked.
    """
    # While allocations count, there may be younger ones, of stacks that are not read here.
    read_at_ns = time.monotonic_ns()
    totals = ledger.totals()
    sites = _Sites(ledger.stacks(), resolve)
    outstanding: Counter[int] = Counter()
    for row in totals:
        site = sites.add(row.stack, row.cycle, row.family)
        tally = site.cycles.setdefault(row.cycle, [0, 0, 0, 0])
        for place, number in enumerate(
            (row.allocated, row.allocated_bytes, row.freed, row.freed_bytes)
        ):
            tally[place] += number
        site.requested += row.allocated_requested - row.freed_requested
        outstanding[id(site)] += row.outstanding
    keep = fair_share(outstanding.values(), keep, keep * SITES_KEPT_WHOLE)
    for entry in ledger.oldest(keep, read_at_ns) if keep else ():
        known = sites.find(entry.stack, entry.cycle, entry.family)
        if known is not None:
            known.kept.append(entry)
    if kmemleak is not None:
        for entry in ledger.outstanding():
            known = sites.find(entry.stack, entry.cycle, entry.family)
            if known is not None and entry.time_ns < read_at_ns:
                kmemleak.count(entry, known.said)
    built = [_site(growing, cycles, keep, holder) for growing in sites]
    if kmemleak is not None:
        left = kmemleak.stacks_left(resolve, cycles)
        built = [
            replace(site, reachability=reachability(growing.said, site.frames, left))
            for site, growing in zip(built, sites, strict=True)
        ]
    return tuple(sorted(built, key=lambda site: site.outstanding.size_bytes, reverse=True))


def fair_share(counts: Iterable[int], most: int, in_all: int) -> int:
    """Return how many each may have, ``most`` or fewer, so that together they have ``in_all``.

    What one that has a small count leaves is for the others. No share is below 1.
    """
    ordered = sorted(min(count, most) for count in counts)
    for place, count in enumerate(ordered):
        share = in_all // (len(ordered) - place)
        if count > share:
            return max(share, 1)
        in_all -= count
    return most


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


def _site(
    growing: _Growing, cycles: int, keep: int, holder: Callable[[int, int], str | None]
) -> TracedSite:
    guard_bytes = guard_bytes_of(growing.allocator)
    tallies = []
    for cycle in range(1, cycles + 1):
        allocated, allocated_bytes, freed, freed_bytes = growing.cycles.get(cycle, [0, 0, 0, 0])
        tallies.append(
            CycleTally(
                Tally(allocated, allocated_bytes - allocated * guard_bytes),
                Tally(freed, freed_bytes - freed * guard_bytes),
            )
        )
    growing.kept.sort(key=lambda entry: entry.time_ns)
    return TracedSite(
        growing.allocator,
        growing.frames,
        tuple(tallies),
        # The size that a caller asked vmalloc for is rounded before the event tells it.
        None if guard_bytes else growing.requested,
        tuple(
            _allocation(
                entry, holder(entry.address, entry.tgid) if entry.family == "pages" else None
            )
            for entry in growing.kept[:keep]
        ),
    )
