"""Witness: who holds the pages of a site now, as the kernel's page flags or page_owner say."""

from __future__ import annotations

from kleak.analysis.findings import Finding
from kleak.analysis.weights import Fact
from kleak.model.session import HELD_BY_ANOTHER, HELD_BY_ITS_TASK, Session, TracedSite

NAME = "page holders"


def judge(site: TracedSite, session: Session) -> Finding | None:
    """Judge by the holders of the kept pages; None where one of them has none that is known."""
    del session
    if site.allocator != "pages" or not site.kept:
        return None
    holders = {kept.holder for kept in site.kept}
    if None in holders:
        return None
    if holders == {"free"}:
        return Finding(
            NAME, Fact.PAGES_FREE, "/proc/kpageflags has them free: the tracer missed it"
        )
    if holders == {HELD_BY_ITS_TASK}:
        return Finding(NAME, Fact.PAGES_OWNED, "page_owner names the task that allocated them")
    if holders == {HELD_BY_ANOTHER}:
        return Finding(
            NAME,
            Fact.PAGES_REUSED,
            "page_owner has others allocate them since: the tracer missed a free",
        )
    if holders & {HELD_BY_ITS_TASK, HELD_BY_ANOTHER}:
        return None
    names = " and ".join(sorted(str(holder) for holder in holders))
    return Finding(NAME, Fact.PAGES_HELD, f"/proc/kpageflags says who has them: {names}")
