"""Reports that count by call site: /proc/allocinfo, page_owner, SLUB's alloc_traces.

All three give a level at each snapshot, not objects that one could follow.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from kleak.analysis.findings import Finding
from kleak.analysis.trend import estimate
from kleak.analysis.weights import Fact
from kleak.frames.stacks import is_bookkeeping, split_allocator
from kleak.model.session import Frame, Source, Tally
from kleak.snapshots.owner import judge_owner
from kleak.snapshots.places import Places
from kleak.snapshots.snapshot import Snapshot
from kleak.snapshots.suspects import Suspect, judge_steps, judge_trend, steps_of

ALLOCINFO = "allocinfo"
PAGE_OWNER = "page_owner"
ALLOC_TRACES = "alloc_traces"

_Frames = tuple[Frame, ...]
_NOTHING = Tally()


def judge_allocinfo(snapshots: Sequence[Snapshot], places: Places) -> list[Suspect]:
    """A suspect for each line of source that holds more at the end than at the start."""
    reports = []
    for shot in snapshots:
        if shot.allocinfo is not None:
            tallies: dict[_Frames, Tally] = defaultdict(Tally)
            for site in shot.allocinfo.sites:
                if site.size_bytes > 0 or site.calls > 0:
                    source = Source(site.file, site.line)
                    frames = (Frame(site.module, site.function, 0, source),)
                    before = tallies[frames]
                    tallies[frames] = Tally(
                        before.count + site.calls, before.size_bytes + site.size_bytes
                    )
            reports.append(tallies)
    return _judge(ALLOCINFO, reports, places, "objects", lambda frames: "allocation")


def judge_page_owner(snapshots: Sequence[Snapshot], places: Places) -> list[Suspect]:
    """A suspect for each stack that holds more pages at the end than at the start."""
    reports = []
    for shot in snapshots:
        if shot.page_stacks is not None:
            tallies: dict[_Frames, Tally] = defaultdict(Tally)
            for stack in shot.page_stacks:
                frames = places.frames(stack.frames)
                before = tallies[frames]
                tallies[frames] = Tally(
                    before.count + stack.pages, before.size_bytes + stack.pages * shot.page_bytes
                )
            reports.append(tallies)
    return _judge(PAGE_OWNER, reports, places, "pages", lambda frames: "page")


def judge_alloc_traces(snapshots: Sequence[Snapshot], places: Places) -> list[Suspect]:
    """A suspect for each cache and stack with more objects at the end than at the start."""
    caches = sorted({name for shot in snapshots for name in shot.alloc_traces or ()})
    suspects = []
    for cache in caches:
        reports = []
        size_bytes = 0
        for shot in snapshots:
            traces = None if shot.alloc_traces is None else shot.alloc_traces.get(cache)
            if traces is None:
                continue
            if shot.slabinfo is not None:
                known = {item.name: item.object_size_bytes for item in shot.slabinfo.caches}
                size_bytes = known.get(cache, size_bytes)
            tallies: dict[_Frames, Tally] = defaultdict(Tally)
            for trace in traces.traces:
                locations = trace.frames or (() if trace.caller is None else (trace.caller,))
                if locations:
                    frames = places.frames(locations)
                    before = tallies[frames].count + trace.count
                    tallies[frames] = Tally(before, before * size_bytes)
            reports.append(tallies)
        found = _judge(ALLOC_TRACES, reports, places, "objects", lambda frames: "kmalloc", cache)
        if not size_bytes:
            says = "object size unknown: no slabinfo that has the cache"
            unknown = Finding(ALLOC_TRACES, Fact.UNKNOWN_SIZE, says)
            found = [replace(one, findings=(*one.findings, unknown)) for one in found]
        suspects += found
    return suspects


def judge_counted_stacks(snapshots: Sequence[Snapshot], places: Places) -> list[Suspect]:
    """A suspect for each stack of memleak or bpftrace that holds more at the end than before."""
    tools = sorted({tool for shot in snapshots for tool in shot.counted_stacks})
    suspects = []
    for tool in tools:
        reports = []
        for shot in snapshots:
            report = shot.counted_stacks.get(tool)
            if report is None:
                continue
            tallies: dict[_Frames, Tally] = defaultdict(Tally)
            for stack in report.stacks:
                if stack.frames:
                    frames = places.frames(stack.frames)
                    before = tallies[frames]
                    tallies[frames] = Tally(
                        before.count + (stack.count or 0),
                        before.size_bytes + (stack.size_bytes or 0),
                    )
            reports.append(tallies)
        suspects += _judge(tool, reports, places, "allocations", lambda frames: "allocation")
    return suspects


def _judge(
    witness: str,
    reports: Sequence[Mapping[_Frames, Tally]],
    places: Places,
    noun: str,
    allocator: Callable[[_Frames], str],
    cache: str | None = None,
) -> list[Suspect]:
    if len(reports) < 2:
        return []
    suspects = []
    for frames, last in reports[-1].items():
        levels = [report.get(frames, _NOTHING) for report in reports]
        first = levels[0]
        growth = Tally(last.count - first.count, last.size_bytes - first.size_bytes)
        if growth.count <= 0 or growth.size_bytes < 0 or is_bookkeeping(frames, allocator(frames)):
            continue
        steps = steps_of(levels)
        if steps is None:
            finding = judge_trend(witness, estimate([level.count for level in levels]), noun)
        else:
            finding = judge_steps(witness, [step.count for step in steps], noun)
        allocator_frames, rest = split_allocator(frames)
        findings = [finding]
        owner = judge_owner(witness, rest, places)
        if owner is not None:
            findings.append(owner)
        suspects.append(
            Suspect(
                allocator=allocator(frames),
                frames=rest or frames,
                outstanding=growth,
                findings=tuple(findings),
                per_step=steps,
                allocator_frames=allocator_frames if rest else (),
                cache=cache,
            )
        )
    return suspects
