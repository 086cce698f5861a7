"""From the maps of the tracer to sites: addresses to frames, stacks that are one site merged."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from kleak.capture.engine.records import LedgerEntry, StackTotal
from kleak.capture.engine.sampling import CLOCK_MONOTONIC_COARSE
from kleak.capture.pointers.joined import JoinedPointers
from kleak.capture.site_index import KnownStacks, Names, SiteIndex
from kleak.capture.witnesses.reachability import Joined, reachability
from kleak.frames.stacks import Frames
from kleak.model.session import Allocation, CycleTally, Frame, StackSample, Tally, TracedSite

# vmap areas end in a page that is not mapped, but for vm_map_ram's (get_vm_area_node() of
# mm/vmalloc.c adds it; VM_NO_GUARD, which no module uses, would not).
_GUARDED = frozenset({"vmalloc", "vmap", "ioremap"})


SITES_KEPT_WHOLE = 50
"""So many times what is kept of one site is kept of all: where there are more, less of each."""


class Ledger(Protocol):
    """What the programs wrote; :class:`kleak.capture.engine.tracer.Tracer` reads it."""

    def totals(self) -> Sequence[StackTotal]:
        """All that was allocated and freed, by stack and cycle."""

    def stacks(self) -> Mapping[int, tuple[int, ...]]:
        """Addresses of the stacks, by their keys."""

    def call_sites(self) -> Mapping[int, int] | None:
        """Where stacks are sampled, the call sites of those that were walked, by their keys."""

    def outstanding(self) -> Iterator[LedgerEntry]:
        """What is outstanding, in no order."""

    def oldest(self, keep: int, before_ns: int) -> Iterator[LedgerEntry]:
        """The oldest of each stack and family that were made before ``before_ns``."""


@dataclass
class _Growing:
    """A site. One that is a ``call_site`` has the stack that most of its objects have."""

    allocator: str
    frames: Frames
    call_site: Frame | None
    # Of a call site: outstanding and allocated objects by the stack that was walked for them.
    walked: dict[Frames, list[int]] = field(default_factory=dict)
    cycles: dict[int, list[int]] = field(default_factory=dict)
    requested: int = 0
    kept: list[LedgerEntry] = field(default_factory=list)
    said: Counter[str] = field(default_factory=Counter)


def build_sites(
    ledger: Ledger,
    names: Names,
    *,
    cycles: int,
    keep: int,
    holder: Callable[[int, int], str | None] = lambda address, tgid: None,
    name_of: Callable[[int], str] = lambda tgid: "",
    kmemleak: Joined | None = None,
    pointers: JoinedPointers[_Growing] | None = None,
) -> tuple[TracedSite, ...]:
    """Merge what the maps hold into sites; most outstanding bytes first.

    ``cycles``: what cycles 1 to ``cycles`` allocated counts. ``keep``: outstanding allocations kept
    of a site, oldest first; fewer where there are very many sites. ``holder`` says who has the page
    at an address that a process (its tgid) allocated. ``name_of`` names a process whose name was
    not noted. ``kmemleak`` joins what it said, None if it was not asked; ``pointers`` likewise what
    a search of memory found.
    """
    # While allocations count, there may be younger ones, of stacks that are not read here. By the
    # clock that lags, as theirs may: allocation_time() of bpf/sampling.h.
    read_at_ns = time.clock_gettime_ns(CLOCK_MONOTONIC_COARSE)
    # A module may be loaded again while the maps are read.
    totals = [row for row in ledger.totals() if row.cycle <= cycles]
    stacks = KnownStacks(ledger.stacks(), ledger.call_sites())
    sites = SiteIndex(stacks, names, _Growing)
    outstanding: Counter[int] = Counter()
    for row in totals:
        site = sites.add(row.stack, row.cycle, row.family)
        _add_row(site, row)
        walked = sites.walked(row.stack, row.cycle)
        if walked is not None:
            known = site.walked.setdefault(walked, [0, 0])
            known[0] += row.outstanding
            known[1] += row.allocated
        outstanding[id(site)] += row.outstanding
    keep = fair_share(outstanding.values(), keep, keep * SITES_KEPT_WHOLE)

    def site_of(entry: LedgerEntry) -> _Growing | None:
        if entry.cycle > cycles:
            return None
        return sites.find(entry.stack, entry.cycle, entry.family)

    for entry in ledger.oldest(keep, read_at_ns) if keep else ():
        found = site_of(entry)
        if found is not None:
            found.kept.append(entry)
    for entry in ledger.outstanding() if kmemleak is not None or pointers is not None else ():
        found = site_of(entry)
        if found is None or entry.time_ns >= read_at_ns:
            continue
        if kmemleak is not None:
            kmemleak.count(entry, found.said)
        if pointers is not None:
            pointers.note(entry, found)

    page_bytes = os.sysconf("SC_PAGESIZE")

    def allocation(entry: LedgerEntry, guard_bytes: int) -> Allocation:
        held_by = None
        if entry.family == "pages" and entry.held_page is not None:
            held_by = holder(entry.address + entry.held_page * page_bytes, entry.tgid)
        return Allocation(
            entry.address,
            entry.size_bytes - guard_bytes,
            entry.requested_bytes - guard_bytes,
            entry.time_ns,
            entry.cycle,
            entry.tgid,
            entry.comm or name_of(entry.tgid),
            held_by,
        )

    built: list[TracedSite] = []
    shown: set[tuple[str, Frames]] = set()
    for site in sites:
        sample = None if site.call_site is None else _show_most_common(site, site.call_site, shown)
        shown.add((site.allocator, site.frames))
        site.kept.sort(key=lambda entry: entry.time_ns)
        guard_bytes = guard_bytes_of(site.allocator)
        kept = tuple(allocation(entry, guard_bytes) for entry in site.kept[:keep])
        built.append(_site(site, cycles, kept, sample))
    if kmemleak is not None:
        left = kmemleak.stacks_left(names.resolve, cycles)
        built = [
            replace(site, reachability=reachability(growing.said, site.frames, left))
            for site, growing in zip(built, sites, strict=True)
        ]
    if pointers is not None:
        frames_of = {
            id(growing): (site.allocator, site.frames)
            for site, growing in zip(built, sites, strict=True)
        }
        built = [
            replace(site, pointers=pointers.of(growing, frames_of))
            for site, growing in zip(built, sites, strict=True)
        ]
    return tuple(sorted(built, key=lambda site: site.outstanding.size_bytes, reverse=True))


def _add_row(site: _Growing, row: StackTotal) -> None:
    tally = site.cycles.setdefault(row.cycle, [0, 0, 0, 0])
    for place, number in enumerate(
        (row.allocated, row.allocated_bytes, row.freed, row.freed_bytes)
    ):
        tally[place] += number
    site.requested += row.allocated_requested - row.freed_requested


def _show_most_common(
    site: _Growing, call_site: Frame, shown: set[tuple[str, Frames]]
) -> StackSample:
    """Give a call site the stack that most of its objects have; return what that rests on."""
    outstanding = [count for count, _ in site.walked.values() if count > 0]
    most = max(site.walked, key=lambda frames: site.walked[frames], default=None)
    # Where the compiler left the call site no frame, two of them may have one stack.
    if most is None or (site.allocator, most) in shown:
        return StackSample(call_site, sum(outstanding), len(outstanding), 0)
    site.frames = most
    return StackSample(call_site, sum(outstanding), len(outstanding), max(0, site.walked[most][0]))


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


def guard_bytes_of(allocator: str) -> int:
    """Return by how much the size in an event exceeds the memory behind it."""
    return os.sysconf("SC_PAGESIZE") if allocator in _GUARDED else 0


def _site(
    growing: _Growing, cycles: int, kept: tuple[Allocation, ...], stacks: StackSample | None
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
    return TracedSite(
        growing.allocator,
        growing.frames,
        tuple(tallies),
        # The size that a caller asked vmalloc for is rounded before the event tells it.
        None if guard_bytes else growing.requested,
        kept,
        stacks=stacks,
    )
