"""/proc/slabinfo over snapshots: caches that grow, merged ones named as such."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kleak.analysis.findings import Finding
from kleak.analysis.trend import MIN_SNAPSHOTS, estimate
from kleak.analysis.weights import Fact
from kleak.model.session import Tally
from kleak.parsers.slabinfo import Cache
from kleak.snapshots.places import Places
from kleak.snapshots.snapshot import Snapshot
from kleak.snapshots.suspects import Suspect, judge_trend, steps_of

WITNESS = "slabinfo"

# Caches whose objects the kernel gives back under pressure; /proc/slabinfo does not say which.
_RECLAIMABLE = re.compile(
    r"dentry|buffer_head|radix_tree_node|bdev_cache|.*inode_cache|.*_inode|.*_inode_info"
    r"|kmalloc-rcl-.*|.*extent_status|.*extent_map|kernfs_node_cache|xfs_ili|xfs_buf"
)
# With too few snapshots for a trend: a CPU's own slabs and partial ones come and go in slabs.
_NOISE_SLABS = 8


def judge(snapshots: Sequence[Snapshot], places: Places) -> list[Suspect]:
    """A suspect without frames for each cache that has grown by more than a few slabs."""
    reports = [
        {cache.name: cache for cache in shot.slabinfo.caches}
        for shot in snapshots
        if shot.slabinfo is not None
    ]
    if len(reports) < 2:
        return []
    aliases = next(
        (shot.slab_aliases for shot in reversed(snapshots) if shot.slab_aliases is not None), None
    )
    suspects = []
    for name, cache in reports[-1].items():
        # a cache that is new began empty
        counts = [report[name].active_objects if name in report else 0 for report in reports]
        suspect = _judge_cache(cache, counts, aliases)
        if suspect is not None:
            suspects.append(suspect)
    return suspects


def _judge_cache(
    cache: Cache, counts: Sequence[int], aliases: dict[str, tuple[str, ...]] | None
) -> Suspect | None:
    trend = estimate(counts)
    grown = counts[-1] - counts[0]
    few = len(counts) < MIN_SNAPSHOTS
    if grown <= 0 or (few and grown <= _NOISE_SLABS * cache.objects_per_slab):
        return None
    if not few and not trend.grows:
        return None
    findings = [judge_trend(WITNESS, trend, "active objects")]
    if _RECLAIMABLE.fullmatch(cache.name):
        says = "the kernel gives such objects back when memory is short"
        findings.append(Finding(WITNESS, Fact.RECLAIMABLE, says))
    size = cache.object_size_bytes
    return Suspect(
        allocator=f"cache {describe(cache.name, aliases)}",
        frames=(),
        outstanding=Tally(grown, grown * size),
        findings=tuple(findings),
        per_step=steps_of([Tally(count, count * size) for count in counts]),
        cache=cache.name,
    )


def describe(name: str, aliases: dict[str, tuple[str, ...]] | None) -> str:
    """A cache's name with those merged into it, which its line in /proc/slabinfo counts too."""
    others = () if aliases is None else aliases.get(name, ())
    if not others:
        return name
    shown = ", ".join(others[:3])
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    return f"{name} (merged with {shown}{more})"
