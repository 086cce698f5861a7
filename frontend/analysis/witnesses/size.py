"""Witness: the bytes that a site holds."""

from __future__ import annotations

from kleak.analysis.findings import Finding
from kleak.analysis.weights import Fact
from kleak.model.session import Session, TracedSite

NAME = "size"

LARGE_BYTES = 1 << 20


def judge(site: TracedSite, session: Session) -> Finding | None:
    """Judge by size; None below 1 MB, where size says nothing. ``session`` takes no part."""
    del session
    held = site.outstanding.size_bytes
    return Finding(NAME, Fact.LARGE, f"holds {held >> 20} MB") if held >= LARGE_BYTES else None
