"""kmemleak over snapshots: objects by stack, those gone at a later scan set aside."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from kleak.analysis.findings import Finding
from kleak.analysis.weights import Fact
from kleak.frames.stacks import split_allocator, vmap_kind
from kleak.model.session import Frame, Tally
from kleak.parsers.kmemleak import UnreferencedObject
from kleak.snapshots.owner import judge_owner
from kleak.snapshots.places import Places
from kleak.snapshots.snapshot import Snapshot
from kleak.snapshots.suspects import Suspect
from kleak.wording import plural

WITNESS = "kmemleak"

_Key = tuple[int, int, int]
_Stack = tuple[tuple[Frame, ...], str]


def judge(snapshots: Sequence[Snapshot], places: Places) -> list[Suspect]:
    """A suspect for each stack with objects in the last report, however many reports there are."""
    reports = [
        {_key(item): item for item in shot.kmemleak.objects}
        for shot in snapshots
        if shot.kmemleak is not None
    ]
    if not reports:
        return []
    groups: dict[_Stack, list[UnreferencedObject]] = defaultdict(list)
    transient: dict[_Stack, int] = defaultdict(int)
    for item in reports[-1].values():
        groups[_stack(item, places)].append(item)
    for key, item in {key: item for report in reports[:-1] for key, item in report.items()}.items():
        if key not in reports[-1]:
            transient[_stack(item, places)] += 1
    return [
        _suspect(stack, items, reports, transient[stack], places) for stack, items in groups.items()
    ]


def set_aside(snapshots: Sequence[Snapshot]) -> str | None:
    """A sentence on the objects that a later scan no longer reported, None if there are none."""
    reports = [
        {_key(item) for item in shot.kmemleak.objects}
        for shot in snapshots
        if shot.kmemleak is not None
    ]
    if len(reports) < 2:
        return None
    gone = set[_Key]().union(*reports[:-1]) - reports[-1]
    if not gone:
        return None
    were = plural(len(gone), "object was", "objects were")
    return f"kmemleak: {were} gone at a later scan and set aside as transient"


def _key(item: UnreferencedObject) -> _Key:
    # the time of the allocation tells an object from the next one at its address
    return item.address, item.jiffies, item.size_bytes


def _stack(item: UnreferencedObject, places: Places) -> _Stack:
    allocator = {"percpu": "percpu", "phys": "memblock"}.get(item.kind)
    frames = places.frames(item.frames)
    if allocator is None:
        inner = [frame.symbol or "" for frame in split_allocator(frames)[0]]
        slab = "kmem_cache" if any(name.startswith("kmem_cache") for name in inner) else "kmalloc"
        allocator = vmap_kind(frames) or slab
    return frames, allocator


def _suspect(
    stack: _Stack,
    items: Sequence[UnreferencedObject],
    reports: Sequence[dict[_Key, UnreferencedObject]],
    transient: int,
    places: Places,
) -> Suspect:
    frames, allocator = stack
    allocator_frames, rest = split_allocator(frames)
    steps = len(reports) - 1
    per_step: list[list[int]] = [[] for _ in range(steps)]
    again = 0
    for item in items:
        first = next(place for place, report in enumerate(reports) if _key(item) in report)
        again += first < steps
        if first > 0:
            per_step[first - 1].append(item.size_bytes)
    if again:
        fact, says = Fact.UNREFERENCED_TWICE, f"{again} of {len(items)} unreferenced in two reports"
    else:
        fact, says = Fact.UNREFERENCED_ONCE, f"{len(items)} unreferenced in one report"
    findings = [Finding(WITNESS, fact, says)]
    if transient:
        says = f"{transient} others of this stack were gone at a later scan"
        findings.append(Finding(WITNESS, Fact.TRANSIENT, says))
    owner = judge_owner(WITNESS, rest, places)
    if owner is not None and owner.fact is not Fact.CODE_LOADED:
        findings.append(owner)
    return Suspect(
        allocator=allocator,
        frames=rest or frames,
        outstanding=Tally(len(items), sum(item.size_bytes for item in items)),
        findings=tuple(findings),
        per_step=tuple(Tally(len(sizes), sum(sizes)) for sizes in per_step) or None,
        allocator_frames=allocator_frames if rest else (),
        addresses=frozenset(item.address for item in items),
    )
