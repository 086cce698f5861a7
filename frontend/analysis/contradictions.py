"""Where the kernel counts what the trace lacks, or no longer has what the trace holds outstanding.

One of the two is wrong then, and it is not the kernel: so the trace is not complete.
"""

from __future__ import annotations

from collections.abc import Iterable

from kleak.analysis.witnesses import kernel_log, vmallocinfo
from kleak.model.session import Session, TracedSite

LEFT_IN_CACHES = "objects_in_the_kernel_log_but_not_in_the_trace"
REGIONS_GONE = "regions_in_the_trace_but_gone_from_vmallocinfo"

_FROM_CACHES = frozenset({"kmem_cache", "reclaimable_cache"})


def contradictions(session: Session, judged: Iterable[TracedSite]) -> dict[str, int]:
    """Return by reason how many objects or regions are in one source only; no reason without any.

    ``judged`` are the sites that a report shows.
    """
    found = {
        LEFT_IN_CACHES: _unseen_objects(session),
        REGIONS_GONE: sum(vmallocinfo.missed_frees(site, session) for site in judged),
    }
    return {reason: number for reason, number in found.items() if number}


def _unseen_objects(session: Session) -> int:
    """Objects left in caches that were destroyed, beyond all that the trace has of any cache.

    Of modules: their caches are theirs, and so are the objects in them.
    """
    if session.target.kind != "module":
        return 0
    counted = kernel_log.objects_left(session)
    traced = sum(site.outstanding.count for site in session.sites if site.allocator in _FROM_CACHES)
    return max(counted - traced, 0)
