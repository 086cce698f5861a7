"""What grew in every step, where a text holds several readings of one figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from kleak.snapshots.slab_usage import slab_usage
from kleak.snapshots.snapshot import Snapshot
from kleak.snapshots.triage_finding import TriageFinding
from kleak.snapshots.witnesses.meminfo import CLASSES
from kleak.snapshots.witnesses.slabinfo import is_reclaimable
from kleak.units import size

# One step cannot tell growth from a moment's use; two that both rise are worth another look.
_LEAST_READINGS = 3
# Below this, and below so much of the first reading, a counter's own noise may rise as well.
_LEAST_BYTES = 8 << 20
_LEAST_SHARE = 0.05


def judge_growth(shots: Sequence[Snapshot]) -> Iterator[TriageFinding]:
    """Classes of the kernel's memory, and slab caches, that rose in every step."""
    for item in CLASSES:
        if item.owner != "kernel":
            continue
        figures = [
            value
            for shot in shots
            if shot.meminfo is not None and (value := item.get(shot.meminfo)) is not None
        ]
        says = _rises(figures)
        if says is not None:
            yield TriageFinding(True, item.name, f"{says}{_times(shots)}", "kleak analyze, with "
                                "the same file")  # fmt: skip
    usages = [usage for shot in shots if (usage := slab_usage(shot)) is not None]
    if len(usages) < _LEAST_READINGS:
        return
    reports = [{cache.name: cache.size_bytes for cache in usage.caches} for usage in usages]
    for name in reports[-1]:
        if is_reclaimable(name):
            continue
        says = _rises([report[name] for report in reports if name in report])
        if says is not None:
            yield TriageFinding(True, f"cache {name}", f"{says}{_times(shots)}",
                                "kleak analyze, with the same file")  # fmt: skip


def _rises(figures: Sequence[int]) -> str | None:
    if len(figures) < _LEAST_READINGS:
        return None
    steps = [later - earlier for earlier, later in pairwise(figures)]
    grown = figures[-1] - figures[0]
    if min(steps) <= 0 or grown < max(_LEAST_BYTES, _LEAST_SHARE * figures[0]):
        return None
    typical = sorted(steps)[len(steps) // 2]
    return (
        f"rose in each of {len(steps)} steps, from {size(figures[0])} to {size(figures[-1])}, "
        f"by {size(typical)} a step"
    )


def _times(shots: Sequence[Snapshot]) -> str:
    first, last = shots[0].time, shots[-1].time
    return "" if first is None or last is None or first == last else f" ({first} to {last})"
