"""What of a report is wanted: the order of its sites, how many, what they have in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from kleak.frames.scope import only_interrupted
from kleak.frames.stacks import is_bookkeeping
from kleak.model.report import Group, JudgedSite, Report, Verdict
from kleak.model.session import Frame, Session, Tally
from kleak.wording import either, plural

ORDERS: dict[str, Callable[[JudgedSite], tuple[float, ...]]] = {
    "rank": lambda site: (site.rank,),
    "bytes": lambda site: (-site.outstanding.size_bytes, site.rank),
    "count": lambda site: (-site.outstanding.count, site.rank),
    "score": lambda site: (-site.score, site.rank),
}
GROUPINGS = ("site", "function", "module", "allocator", "process")


def sort(report: Report, order: str) -> Report:
    """The report with its sites in one of ORDERS; they keep their ranks.

    What hangs on another site stays behind it.
    """
    by_rank = {site.rank: site for site in report.sites}

    def key(site: JudgedSite) -> tuple[float, ...]:
        top = site
        while top.parent is not None:
            top = by_rank[top.parent.rank]
        return (*ORDERS[order](top), site.rank)

    return replace(report, sites=tuple(sorted(report.sites, key=key)))


def top(report: Report, number: int) -> Report:
    """The report with its first ``number`` sites, and groups, shown; a note tells of the others."""
    shown, rest = report.sites[:number], report.sites[number:]
    groups = len(report.groups) - number
    said = [(groups, "group")] if report.grouped_by is not None else [(len(rest), "site")]
    notes = tuple(
        f"{plural(count, f'more {noun}')} {either(count, 'is', 'are')} not shown"
        for count, noun in said
        if count > 0
    )
    if not rest and groups <= 0:
        return report
    return replace(
        report,
        sites=shown,
        not_shown=rest,
        groups=report.groups[:number],
        groups_not_shown=max(0, groups),
        trust=replace(report.trust, notes=(*report.trust.notes, *notes)),
    )


@dataclass
class _Sum:
    sites: int = 0
    count: int = 0
    size_bytes: int = 0
    verdict: Verdict = Verdict.RETAINED

    def add(self, count: int, size_bytes: int, verdict: Verdict) -> None:
        self.sites += 1
        self.count += count
        self.size_bytes += size_bytes
        self.verdict = max(self.verdict, verdict)


def group(report: Report, grouping: str, sessions: Sequence[Session]) -> Report:
    """The report with ``groups`` by one of GROUPINGS; with "site" it stays as it is.

    The processes come from the kept allocations of ``sessions``, which may be fewer than are
    outstanding: a note tells of it.
    """
    if grouping == "site":
        return report
    sums: defaultdict[str, _Sum] = defaultdict(_Sum)
    notes = report.trust.notes
    if grouping == "process":
        kept = _add_processes(sums, sessions, report)
        total = sum(site.outstanding.count for site in report.sites)
        if kept < total:
            notes = (*notes, f"processes are known of {kept} of {total} objects: see --keep")
    else:
        for site in report.sites:
            held = site.outstanding
            sums[_key(site, grouping)].add(held.count, held.size_bytes, site.verdict)
    groups = [
        Group(key, one.sites, Tally(one.count, one.size_bytes), one.verdict)
        for key, one in sums.items()
    ]
    groups.sort(key=lambda one: (-one.outstanding.size_bytes, -one.outstanding.count, one.key))
    return replace(
        report,
        grouped_by=grouping,
        groups=tuple(groups),
        trust=replace(report.trust, notes=notes),
    )


def _key(site: JudgedSite, grouping: str) -> str:
    if grouping == "allocator":
        return site.allocator
    if grouping == "function":
        return _function(site.frames[0])
    return next((frame.module for frame in site.frames if frame.module is not None), "kernel")


def _function(frame: Frame) -> str:
    name = frame.symbol or f"{frame.offset:#x}"
    return name if frame.module is None else f"{name} [{frame.module}]"


def _add_processes(
    sums: defaultdict[str, _Sum], sessions: Iterable[Session], report: Report
) -> int:
    """Add the kept allocations of the sites in ``report`` by process; return their number."""
    verdicts = {(site.allocator, site.frames): site.verdict for site in report.sites}
    number = 0
    for session in sessions:
        for site in session.sites:
            if is_bookkeeping(site.frames, site.allocator) or only_interrupted(
                site.frames, session.target
            ):
                continue
            held: defaultdict[str, list[int]] = defaultdict(list)
            for kept in site.kept:
                held[f"{kept.comm} {kept.pid}".lstrip()].append(kept.size_bytes)
                number += 1
            verdict = _verdict_of(site.allocator, site.frames, verdicts)
            for process, sizes in held.items():
                sums[process].add(len(sizes), sum(sizes), verdict)
    return number


def _verdict_of(
    allocator: str,
    frames: tuple[Frame, ...],
    verdicts: dict[tuple[str, tuple[Frame, ...]], Verdict],
) -> Verdict:
    """The verdict on a captured site: of the judged one whose frames end its stack."""
    for start in range(len(frames)):
        verdict = verdicts.get((allocator, frames[start:]))
        if verdict is not None:
            return verdict
    return Verdict.POSSIBLE
