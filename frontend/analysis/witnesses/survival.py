"""Witness: what is outstanding when the module is gone and the deferred frees are through."""

from __future__ import annotations

from kleak.analysis.findings import Finding
from kleak.analysis.weights import Fact
from kleak.model.session import Session, TracedSite

NAME = "survival"


def judge(site: TracedSite, session: Session) -> Finding:
    """Judge by what the outstanding objects have outlived."""
    if session.target.kind != "module":
        return Finding(
            NAME, Fact.STILL_ALLOCATED, "still allocated at the end; nothing was unloaded"
        )
    loaded = sum(
        tally.outstanding.count
        for tally, cycle in zip(site.cycles, session.cycles, strict=True)
        if cycle.unloaded_at_ns is None
    )
    if loaded == site.outstanding.count:
        return Finding(
            NAME, Fact.STILL_LOADED, "the module was not unloaded, it may still hold them"
        )
    if not session.trust.saw_every_event:
        return Finding(
            NAME,
            Fact.SURVIVED_LOSSY,
            "outlived the unload, though the trace lost events (see trust)",
        )
    if site.allocator == "reclaimable_cache":
        says = "outlived the unload, the deferred frees and the dropping of what nobody uses"
        return Finding(NAME, Fact.SURVIVED_UNLOAD, says)
    return Finding(NAME, Fact.SURVIVED_UNLOAD, "outlived the unload and the deferred frees")
