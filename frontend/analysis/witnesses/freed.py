"""Witness: the share of a site's allocations that were freed."""

from __future__ import annotations

from kleak.analysis.findings import Finding
from kleak.analysis.weights import Fact
from kleak.model.session import Session, TracedSite

NAME = "freed"

RARE_ONE_IN = 1000


def judge(site: TracedSite, session: Session) -> Finding:
    """Judge by how the siblings of the kept objects fared. ``session`` takes no part."""
    del session
    allocated = sum(tally.allocated.count for tally in site.cycles)
    freed = sum(tally.freed.count for tally in site.cycles)
    kept = [tally.outstanding.count for tally in site.cycles]
    if freed == 0:
        says = "never freed" if allocated == 1 else f"none of {allocated} was ever freed"
        return Finding(NAME, Fact.NONE_FREED, says)
    earlier = sum(tally.allocated.count for tally in site.cycles[:-1])
    if earlier and not any(kept[:-1]) and freed * 2 >= allocated:
        return Finding(
            NAME,
            Fact.IN_FLIGHT,
            "all of the earlier cycles were freed, so the last may be only late",
        )
    steady = len(kept) > 1 and len(set(kept)) == 1
    if sum(kept) * RARE_ONE_IN <= allocated and not steady:
        return Finding(
            NAME,
            Fact.RARELY_KEPT,
            f"{sum(kept)} of {allocated} kept, as rare as a free that a tracer misses",
        )
    return Finding(
        NAME, Fact.SOME_FREED, f"{freed} of {allocated} were freed, {sum(kept)} forgotten"
    )
