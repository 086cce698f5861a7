"""Which leaks hang on others: a structure is lost, and with it all that it points to.

By pointers, where the capture could read memory: the objects of the parent hold the addresses of
the child's. Else by time: both were allocated in turn by the same call of a function. A site never
hangs on one that is less surely a leak. docs/verdicts.md tells it to the user.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from kleak.frames.names import base_name
from kleak.frames.scope import in_scope
from kleak.frames.stacks import Frames, split_allocator
from kleak.model.report import JudgedSite, Parent, Report
from kleak.model.session import Allocation, Frame, Session, Target, TracedSite

CHECKED_OBJECTS = 31
"""Oldest objects of a child that must all be pointed to. Captures read more of each parent."""

PAIRS = 3
"""So many pairs, allocated in turn, are the least that make a pattern."""

_SLAB_CACHES = frozenset({"kmem_cache", "reclaimable_cache"})


Hanging = tuple[int, int, str, str]
"""The positions of a child and its parent, by what, and in words; the better parent first."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A pointer: the object that holds it, where in it, and the object pointed to."""

    holder: Allocation
    offset: int
    child: Allocation


def fold(
    judged: Sequence[tuple[TracedSite, JudgedSite]], session: Session
) -> tuple[JudgedSite, ...]:
    """Find the parents of ``judged``, which come in their order, and rank all: each child
    behind its parent.
    """
    sites = [site for site, _ in judged]
    verdicts = [site.verdict for _, site in judged]
    text = next(
        (one.text for one in session.circumstances.answers if one.witness == "pointers"), None
    )
    found = _by_time(sites, session) if text is None else _by_pointers(sites, text)
    sure = (one for one in found if verdicts[one[1]] >= verdicts[one[0]])
    return arrange([site for _, site in judged], sure)


def arrange(sites: Sequence[JudgedSite], found: Iterable[Hanging]) -> tuple[JudgedSite, ...]:
    """Rank ``sites``, which come in their order, each child behind its parent.

    Of what was ``found`` the first that fits counts; what would close a circle does not, so every
    line has a head. Ranks and parents that the sites have are set anew.
    """
    parents: dict[int, int] = {}
    said: dict[int, tuple[str, str]] = {}
    for child, parent, by, says in found:
        if child not in parents and child not in _line(parent, parents):
            parents[child] = parent
            said[child] = (by, says)
    order = sorted(range(len(sites)), key=lambda position: _line(position, parents)[::-1])
    ranks = {position: rank for rank, position in enumerate(order, start=1)}
    return tuple(
        replace(
            sites[position],
            rank=ranks[position],
            parent=Parent(ranks[parents[position]], *said[position]) if position in said else None,
        )
        for position in order
    )


def stand_alone(report: Report) -> Report:
    """The report, where what counts and hangs on what was excused counts by itself."""
    excused = {site.rank for site in report.sites if site.excuse is not None}
    return replace(
        report,
        sites=tuple(
            replace(site, parent=None)
            if site.excuse is None and site.parent is not None and site.parent.rank in excused
            else site
            for site in report.sites
        ),
    )


def _line(position: int, parents: Mapping[int, int]) -> list[int]:
    """A site and all that it hangs on."""
    line = [position]
    while line[-1] in parents:
        line.append(parents[line[-1]])
    return line


# --- by pointers ----------------------------------------------------------------------------


def _by_pointers(sites: Sequence[TracedSite], text: str) -> Iterator[Hanging]:
    lines = [tuple(int(word, 0) for word in line.split()) for line in text.splitlines()]
    if not lines:
        return  # the kept allocations of a large session take a while to read
    named = {address for holder, _, child in lines for address in (holder, child)}
    owners = {
        kept.address: (number, kept)
        for number, site in enumerate(sites)
        for kept in site.kept
        if kept.address in named
    }
    held: defaultdict[tuple[int, int], dict[int, _Held]] = defaultdict(dict)
    for holder_address, offset, child_address in lines:
        if holder_address not in owners or child_address not in owners:
            continue
        parent, holder = owners[holder_address]
        child, kept = owners[child_address]
        pointer = _Held(holder, offset, kept)
        if parent != child and _is_proof(pointer, sites[parent], sites[child]):
            held[child, parent][child_address] = pointer
    candidates = []
    for (child, parent), pointers in held.items():
        checked = sites[child].kept[:CHECKED_OBJECTS]
        if all(kept.address in pointers for kept in checked):
            chosen = [pointers[kept.address] for kept in checked]
            # Of several holders the one allocated last is the nearest.
            last = max(one.holder.allocated_at_ns for one in chosen)
            candidates.append((child, -last, parent, chosen))
    for child, _, parent, chosen in sorted(candidates, key=lambda one: one[:3]):
        offsets = sorted({one.offset for one in chosen})
        where = f" at offset {offsets[0]}" if len(offsets) == 1 else ""
        number = len(chosen)
        says = (
            f"an older object there points to it{where}"
            if number == 1
            else f"older objects there point to each of the {number} that were checked{where}"
        )
        yield child, parent, "pointers", says


def _is_proof(pointer: _Held, parent: TracedSite, child: TracedSite) -> bool:
    """Whether a pointer was stored by who owns the holder, and is not left over in its memory.

    What a holder's memory held before is older than the holder. But the free list is threaded
    through free objects of one size, and leads to the one that is allocated next: in the middle
    of a kmalloc object (commit 3202fa62fb43 ("slub: relocate freelist pointer to middle of
    object") (in v5.7)), somewhere in one of another cache.
    """
    holder, kept = pointer.holder, pointer.child
    if holder.allocated_at_ns >= kept.allocated_at_ns:
        return False
    if parent.allocator != child.allocator or holder.size_bytes != kept.size_bytes:
        return True
    if parent.allocator in _SLAB_CACHES:
        return False
    return parent.allocator != "kmalloc" or pointer.offset != holder.size_bytes // 2 // 8 * 8


# --- by time --------------------------------------------------------------------------------


def _by_time(sites: Sequence[TracedSite], session: Session) -> Iterator[Hanging]:
    stacks = [split_allocator(site.frames)[1] for site in sites]
    calls = _number_calls(stacks, session.target)
    counts = [tuple(tally.outstanding.count for tally in site.cycles) for site in sites]
    callers: defaultdict[object, list[int]] = defaultdict(list)
    for number, of_stack in enumerate(calls):
        if of_stack and of_stack[0] is not None:
            callers[counts[number], of_stack[0]].append(number)
    for child, frames in enumerate(stacks):
        candidates = [
            (sites[parent].kept[0].allocated_at_ns, parent, base_name(frames[depth].symbol or ""))
            for depth, call in enumerate(calls[child])
            if call is not None
            for parent in callers.get((counts[child], call), ())
            if parent != child and _in_turn(sites[parent].kept, sites[child].kept)
        ]
        if candidates:
            _, parent, function = min(candidates)
            says = (
                f"allocated together: in turn with it, one for one, {len(sites[child].kept)} "
                f"times by {function}(); no memory was read to see who points to whom"
            )
            yield child, parent, "time", says


_Call = tuple[str | None, str, int]


def _number_calls(stacks: Iterable[Frames], target: Target) -> list[list[_Call | None]]:
    """For each frame of each stack what is equal for all stacks below one call of a function of
    the target: that function, and a number for the frames that called it. None for another
    function, or where nobody is known to call it.
    """
    numbers: dict[tuple[Frame, int], int] = {}
    found = []
    for frames in stacks:
        calls: list[_Call | None] = []
        callers = 0
        for frame in reversed(frames):
            if callers and frame.symbol is not None and in_scope(frame, target):
                calls.append((frame.module, base_name(frame.symbol), callers))
            else:
                calls.append(None)
            callers = numbers.setdefault((frame, callers), len(numbers) + 1)
        found.append(calls[::-1])
    return found


def _in_turn(parents: Sequence[Allocation], children: Sequence[Allocation]) -> bool:
    """Whether each child follows its parent, before the next parent, in the same task and cycle."""
    if len(parents) != len(children) or len(parents) < PAIRS:
        return False
    following = [*(one.allocated_at_ns for one in parents[1:]), None]
    return all(
        parent.allocated_at_ns < child.allocated_at_ns
        and (until is None or child.allocated_at_ns < until)
        and (parent.pid, parent.cycle) == (child.pid, child.cycle)
        for parent, child, until in zip(parents, children, following, strict=True)
    )
