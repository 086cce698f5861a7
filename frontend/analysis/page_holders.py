"""Witness: who holds the pages of a site now, as the kernel's page flags say."""

from __future__ import annotations

from kleak.analysis.findings import Finding
from kleak.analysis.weights import Fact
from kleak.model import Session, TracedSite


def judge(site: TracedSite, session: Session) -> Finding | None:
    """Judge by the holders of the kept pages; None where one of them has none that is known."""
    del session
    if site.allocator != "pages" or not site.kept:
        return None
    holders = {kept.holder for kept in site.kept}
    if None in holders:
        return None
    if holders == {"free"}:
        return Finding(Fact.PAGES_FREE, "/proc/kpageflags has them free: the tracer missed it")
    names = " and ".join(sorted(str(holder) for holder in holders))
    return Finding(Fact.PAGES_HELD, f"/proc/kpageflags says who has them: {names}")
