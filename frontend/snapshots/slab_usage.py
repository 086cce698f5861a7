"""What each slab cache holds, from whichever report of the snapshot tells."""

from __future__ import annotations

from dataclasses import dataclass

from kleak.parsers.slab_tables import CacheUsage
from kleak.snapshots.snapshot import Snapshot

# The first cache that a kernel makes, and so the last row of its /proc/slabinfo: a report that
# ends with it was not cut, and not sorted and cut.
_LAST_ROW = "kmem_cache"


@dataclass(frozen=True, slots=True)
class SlabUsage:
    """All caches that a report has, the largest first. ``report`` names it.

    ``whole`` is whether these are all caches of the machine, as far as one can see.
    """

    report: str
    caches: tuple[CacheUsage, ...]
    whole: bool

    @property
    def total_bytes(self) -> int:
        """What the caches hold together."""
        return sum(cache.size_bytes for cache in self.caches)


def slab_usage(shot: Snapshot) -> SlabUsage | None:
    """The caches of a snapshot: of /proc/slabinfo, else of a tool's table, else of a dump."""
    if shot.slabinfo is not None and shot.slabinfo.caches:
        rows = [
            CacheUsage(
                cache.name,
                cache.slabs * cache.pages_per_slab * shot.page_bytes,
                cache.active_objects,
                cache.object_size_bytes,
            )
            for cache in shot.slabinfo.caches
        ]
        whole = (
            (shot.slabinfo.version or "").startswith("2.")
            and "slabinfo" not in shot.damaged
            and rows[-1].name == _LAST_ROW
        )
        return _sorted("slabinfo", rows, whole=whole)
    for tool, table in shot.slab_tables.items():
        return _sorted(tool, list(table), whole=False)
    if shot.dump is not None and shot.dump.slabs:
        rows = [CacheUsage(slab.name, slab.total_bytes) for slab in shot.dump.slabs]
        return _sorted("memory dump", rows, whole=False)
    return None


def _sorted(report: str, rows: list[CacheUsage], *, whole: bool) -> SlabUsage:
    return SlabUsage(report, tuple(sorted(rows, key=lambda row: -row.size_bytes)), whole)
