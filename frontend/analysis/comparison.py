"""What changed between two reports, by site.

A site is told by its allocator and the functions on its stack, without offsets and without what
the compiler appends to names: the same in another build, and on another kernel. Sites that this
does not tell apart (two calls in one function) are taken together.

Rates are objects a cycle. One is higher than another if their difference is more than three
standard errors; numbers that are the same in every cycle have none, so there any difference counts.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import mean, variance

from kleak.analysis.merge import SitePath, site_path
from kleak.errors import UsageError
from kleak.model.report import JudgedSite, Report, Verdict
from kleak.model.session import Frame, Tally

STANDARD_ERRORS = 3.0


class Kind(Enum):
    """What became of a site. The order is that of a table: the worst first."""

    APPEARED = "appeared"
    GREW = "grew"
    SHRANK = "shrank"
    WENT = "went"
    SAME = "same"


WORSE = frozenset({Kind.APPEARED, Kind.GREW})


@dataclass(frozen=True, slots=True)
class Side:
    """A site in one of the reports. ``rate`` and ``rate_bytes`` are objects and bytes a cycle.

    ``counts`` are the objects of each cycle, None where cycles are unknown. ``excused``: all of
    ``sites`` are.
    """

    sites: int
    verdict: Verdict
    outstanding: Tally
    rate: float
    rate_bytes: float
    counts: tuple[int, ...] | None
    excused: bool


@dataclass(frozen=True, slots=True)
class Change:
    """One site in both reports, or in one. ``frames`` are those of the later one that has it."""

    kind: Kind
    allocator: str
    frames: tuple[Frame, ...]
    before: Side | None
    after: Side | None

    @property
    def verdict(self) -> Verdict:
        """That of the later report that has it."""
        side = self.after or self.before
        return Verdict.RETAINED if side is None else side.verdict


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two reports on one target, and every site of theirs, the worst change first."""

    before: Report
    after: Report
    changes: tuple[Change, ...]


def compare(before: Report, after: Report) -> Comparison:
    """Compare two reports. Raises UsageError for reports on different targets."""
    if not same_target(before, after):
        raise UsageError(
            f"the reports are of {before.target.kind} {before.target.name} and of "
            f"{after.target.kind} {after.target.name}: only those of one target can be compared"
        )
    old, new = by_path(before), by_path(after)
    changes = [_change(before, old.get(path, []), after, new.get(path, [])) for path in old | new]
    return Comparison(before, after, tuple(sorted(changes, key=_order)))


def same_target(one: Report, other: Report) -> bool:
    """Whether both are of the same target. Snapshots have no name that would tell."""
    first, second = one.target, other.target
    return first.kind == second.kind and (first.name == second.name or first.kind == "snapshots")


def by_path(report: Report) -> dict[SitePath, list[JudgedSite]]:
    """The sites of a report by what is equal for the same site in another build."""
    found: defaultdict[SitePath, list[JudgedSite]] = defaultdict(list)
    for site in report.sites:
        found[site_path(site, report.target)].append(site)
    return dict(found)


def side(sites: Sequence[JudgedSite], report: Report) -> Side:
    """What ``sites`` of ``report``, of which there is at least one, come to."""
    count = sum(site.outstanding.count for site in sites)
    size_bytes = sum(site.outstanding.size_bytes for site in sites)
    cycles = max(report.cycles, 1)
    by_cycle = [site.per_cycle for site in sites if site.per_cycle is not None]
    counts = None
    if len(by_cycle) == len(sites) and by_cycle[0]:
        counts = tuple(sum(tally.count for tally in same) for same in zip(*by_cycle, strict=True))
    return Side(
        len(sites),
        max(site.verdict for site in sites),
        Tally(count, size_bytes),
        count / cycles,
        size_bytes / cycles,
        counts,
        all(site.excuse is not None for site in sites),
    )


def is_higher(one: Side, other: Side) -> bool:
    """Whether the rate of ``one`` is higher than that of ``other``, beyond chance."""
    if one.counts is None or other.counts is None:
        return one.rate > other.rate
    difference = mean(one.counts) - mean(other.counts)
    spread = [
        variance(side.counts) for side in (one, other) if side.counts and len(side.counts) > 1
    ]
    # One cycle says nothing of its spread: it gets the other's.
    known = max(spread, default=0.0)
    error = math.sqrt(
        sum(
            (variance(counts) if len(counts) > 1 else known) / len(counts)
            for counts in (one.counts, other.counts)
        )
    )
    return difference > STANDARD_ERRORS * error


def _change(
    before: Report, old: Sequence[JudgedSite], after: Report, new: Sequence[JudgedSite]
) -> Change:
    shown = (new or old)[0]
    first = side(old, before) if old else None
    second = side(new, after) if new else None
    if first is None:
        kind = Kind.APPEARED
    elif second is None:
        kind = Kind.WENT
    elif is_higher(second, first):
        kind = Kind.GREW
    else:
        kind = Kind.SHRANK if is_higher(first, second) else Kind.SAME
    return Change(kind, shown.allocator, shown.frames, first, second)


def _order(change: Change) -> tuple[object, ...]:
    shown = change.after or change.before
    held = 0 if shown is None else shown.outstanding.size_bytes
    names = [(frame.module or "", frame.symbol or "", frame.offset) for frame in change.frames]
    return list(Kind).index(change.kind), -change.verdict, -held, names, change.allocator
