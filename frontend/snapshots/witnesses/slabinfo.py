"""/proc/slabinfo, or another report of slab caches, over snapshots: caches that grow, merged ones
named as such.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from kleak.analysis.findings import Finding
from kleak.analysis.trend import MIN_SNAPSHOTS, estimate
from kleak.analysis.weights import Fact
from kleak.model.session import Tally
from kleak.parsers.slab_tables import CacheUsage
from kleak.snapshots.places import Places
from kleak.snapshots.slab_usage import slab_usage
from kleak.snapshots.snapshot import Snapshot
from kleak.snapshots.suspects import Suspect, judge_rise, judge_trend, steps_of

WITNESS = "slabinfo"

# Caches whose objects the kernel gives back under pressure; /proc/slabinfo does not say which.
_RECLAIMABLE = re.compile(
    r"dentry|buffer_head|radix_tree_node|bdev_cache|.*inode_cache|.*_inode|.*_inode_info"
    r"|kmalloc-rcl-.*|.*extent_status|.*extent_map|kernfs_node_cache|xfs_ili|xfs_buf"
)
# With too few snapshots for a trend: a CPU's own slabs and partial ones come and go in slabs.
_NOISE_SLABS = 8
_NOISE_BYTES = 1 << 20


def judge(snapshots: Sequence[Snapshot], places: Places) -> list[Suspect]:
    """A suspect without frames for each cache that has grown by more than a few slabs."""
    reports = [
        {cache.name: cache for cache in usage.caches}
        for shot in snapshots
        if (usage := slab_usage(shot)) is not None
    ]
    if len(reports) < 2:
        return []
    aliases = next(
        (shot.slab_aliases for shot in reversed(snapshots) if shot.slab_aliases is not None), None
    )
    per_slab = {
        cache.name: cache.objects_per_slab
        for shot in snapshots
        if shot.slabinfo is not None
        for cache in shot.slabinfo.caches
    }
    suspects = []
    for name, cache in reports[-1].items():
        # a cache that is new began empty
        levels = [_level(report.get(name), cache) for report in reports]
        suspect = _judge_cache(cache, levels, per_slab.get(name, 1), aliases)
        if suspect is not None:
            suspects.append(suspect)
    return suspects


def _level(cache: CacheUsage | None, last: CacheUsage) -> Tally:
    """Objects in use and what they take; a table without objects has what their slabs take."""
    if cache is None:
        return Tally()
    if last.active_objects is None or last.object_size_bytes is None:
        return Tally(0, cache.size_bytes)
    count = cache.active_objects or 0
    return Tally(count, count * last.object_size_bytes)


def _judge_cache(
    cache: CacheUsage,
    levels: Sequence[Tally],
    per_slab: int,
    aliases: dict[str, tuple[str, ...]] | None,
) -> Suspect | None:
    counted = cache.active_objects is not None
    figures = [level.count if counted else level.size_bytes for level in levels]
    trend = estimate(figures)
    grown = figures[-1] - figures[0]
    few = len(figures) < MIN_SNAPSHOTS
    noise = _NOISE_SLABS * per_slab if counted else _NOISE_BYTES
    if grown <= 0 or (few and grown <= noise):
        return None
    if not few and not trend.grows:
        return None
    findings = [judge_trend(WITNESS, trend, "active objects" if counted else "bytes")]
    if is_reclaimable(cache.name):
        says = "the kernel gives such objects back when memory is short"
        findings.append(Finding(WITNESS, Fact.RECLAIMABLE, says))
    else:
        rises = judge_rise(WITNESS, [level.size_bytes for level in levels], f"cache {cache.name}")
        findings += [] if rises is None else [rises]
    return Suspect(
        allocator=f"cache {describe(cache.name, aliases)}",
        frames=(),
        outstanding=Tally(
            levels[-1].count - levels[0].count, levels[-1].size_bytes - levels[0].size_bytes
        ),
        findings=tuple(findings),
        per_step=steps_of(levels),
        cache=cache.name,
    )


def is_reclaimable(cache: str) -> bool:
    """Whether the kernel gives the objects of a cache back when memory is short."""
    return _RECLAIMABLE.fullmatch(cache) is not None


def describe(name: str, aliases: dict[str, tuple[str, ...]] | None) -> str:
    """A cache's name with those merged into it, which its line in /proc/slabinfo counts too."""
    others = () if aliases is None else aliases.get(name, ())
    if not others:
        return name
    shown = ", ".join(others[:3])
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    return f"{name} (merged with {shown}{more})"
