"""What a witness returns, and what a witness is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kleak.analysis.weights import Fact
from kleak.model.session import Session, TracedSite


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about a site, and the sentence that tells it to a person."""

    fact: Fact
    says: str


Judge = Callable[[TracedSite, Session], "Finding | None"]


@dataclass(frozen=True, slots=True)
class Witness:
    """One source of evidence. Witnesses of the same ``source`` are correlated."""

    name: str
    source: str
    judge: Judge
