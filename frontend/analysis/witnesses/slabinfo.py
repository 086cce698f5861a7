"""Witness: the slab cache of a site's objects, before the first cycle and after the last."""

from __future__ import annotations

import re
from collections import Counter

from kleak.analysis.findings import Finding
from kleak.analysis.session_reports import cpus, first_and_last, once_per_session
from kleak.analysis.weights import Fact
from kleak.model.session import Session, TracedSite
from kleak.parsers import slabinfo
from kleak.parsers.slabinfo import Cache

NAME = "slabinfo"
# SLUB counts all objects of a CPU's own slab, and of its partial ones, as active. So a cache that
# holds the same is counted up to so many slabs for each CPU higher or lower.
NOISE_SLABS_PER_CPU = 4
_KMALLOC = re.compile(r"(?:dma-)?kmalloc-[\w-]+")
_AllocatorAndSize = tuple[bool, int]
"""Whether it is kmalloc memory, and bytes of one object."""


def judge(site: TracedSite, session: Session) -> Finding | None:
    """Judge whether the caches of that object size grew by as much as is outstanding in them.

    Caches that were merged, kmalloc's for memory cgroups and its random ones count together: the
    events do not tell which it was. None for a site with too few objects to tell from noise, and
    where those that were kept, or the mean, tell that sizes differ. A cache of its own may be gone
    with its objects, so only kmalloc's can speak against the ledger.
    """
    key = _key(site)
    changes = _changes(session)
    if key is None or changes is None:
        return None
    held = _held(session)[key]
    rows = changes.get(key, [])
    noise = sum(NOISE_SLABS_PER_CPU * after.objects_per_slab for _, after in rows) * cpus(session)
    if not rows or not noise < site.outstanding.count <= held:
        return None
    grown = sum(after.active_objects - before for before, after in rows)
    names = ", ".join(sorted(after.name for before, after in rows if after.active_objects > before))
    if grown + noise >= held and grown * 2 >= held:
        says = f"/proc/slabinfo has {grown} objects more in {names}, the ledger {held}"
        return Finding(NAME, Fact.CACHE_GREW, says)
    if key[0] and grown + noise < held / 2:
        says = f"/proc/slabinfo has {grown:+d} objects of {key[1]} B, the ledger +{held}"
        return Finding(NAME, Fact.CACHE_DID_NOT_GROW, says)
    return None


def _key(site: TracedSite) -> _AllocatorAndSize | None:
    """None for other allocators, and where sizes differ: a mean may be another cache's size."""
    count, size_bytes = site.outstanding.count, site.outstanding.size_bytes
    if site.allocator not in ("kmalloc", "kmem_cache", "reclaimable_cache"):
        return None
    if not count or size_bytes % count or not site.kept:
        return None
    size = size_bytes // count
    if any(kept.size_bytes != size for kept in site.kept):
        return None
    return site.allocator == "kmalloc", size


@once_per_session
def _held(session: Session) -> Counter[_AllocatorAndSize]:
    """Outstanding objects of all sites, by where they may be."""
    found: Counter[_AllocatorAndSize] = Counter()
    for site in session.sites:
        key = _key(site)
        if key is not None:
            found[key] += site.outstanding.count
    return found


@once_per_session
def _changes(session: Session) -> dict[_AllocatorAndSize, list[tuple[int, Cache]]] | None:
    """Active objects before (0 for a new cache), and the cache after. None: not read twice."""
    reports = first_and_last(session, NAME)
    if reports is None:
        return None
    before, after = (
        {cache.name: cache for cache in slabinfo.parse(text, errors="collect").caches}
        for text in reports
    )
    changes: dict[_AllocatorAndSize, list[tuple[int, Cache]]] = {}
    for name, cache in after.items():
        key = (_KMALLOC.fullmatch(name) is not None, cache.object_size_bytes)
        active = before[name].active_objects if name in before else 0
        changes.setdefault(key, []).append((active, cache))
    return changes
