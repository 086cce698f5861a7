"""What a witness returns, and what a witness is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kleak.analysis.weights import Fact
from kleak.model.session import Session, TracedSite


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about a site, the witness that found it, and the sentence that tells it."""

    witness: str
    fact: Fact
    says: str


Judge = Callable[[TracedSite, Session], "Finding | None"]
"""A witness of a capture: what it says of one site, or None."""
