"""Witness: a search of the kernel's memory for pointers to the objects of a site."""

from __future__ import annotations

from kleak.analysis.findings import Finding
from kleak.analysis.weights import Fact
from kleak.model.session import PointersTo, Session, TracedSite

NAME = "reachability"
MIN_UNHELD = 3
"""Of fewer objects, one that the search was wrong about would decide."""
MIN_SHARE_UNHELD = 0.9
_NAMED_HOLDERS = 3


def judge(site: TracedSite, session: Session) -> Finding | None:
    """Judge the site by what leads to its objects; never by some of them."""
    found = site.pointers
    if found is None:
        return None
    many = found.unreferenced >= MIN_UNHELD
    if many and found.unreferenced >= MIN_SHARE_UNHELD * found.searched:
        says = f"nothing in memory points to {_share(found.unreferenced, found.searched)}"
        return Finding(NAME, Fact.UNHELD, f"{says}, in two searches{_rest(found)}")
    if found.referenced == found.searched:
        which = "it" if found.searched == 1 else f"all {found.searched} that were searched for"
        says = f"something points to {which}: held by {_holders(found)}"
        unloaded = session.target.kind == "module"
        return Finding(NAME, Fact.HELD if unloaded else Fact.HELD_IN_USE, says)
    parts = [f"nothing points to {found.unreferenced} of {found.searched}"]
    if found.referenced:
        parts.append(f"something to {found.referenced}, held by {_holders(found)}")
    return Finding(NAME, Fact.PARTLY_HELD, "; ".join(parts))


def _share(unreferenced: int, searched: int) -> str:
    if unreferenced == searched:
        return f"any of the {searched} that were searched for"
    return f"{unreferenced} of the {searched} that were searched for"


def _rest(found: PointersTo) -> str:
    return f"; to {found.referenced}: {_holders(found)}" if found.referenced else ""


def _holders(found: PointersTo) -> str:
    named = [f"{what} ({count})" for what, count in found.holders[:_NAMED_HOLDERS]]
    left = len(found.holders) - _NAMED_HOLDERS
    return ", ".join(named) + (f" and {left} more" if left > 0 else "")
