"""What witnesses answered, out of a session, parsed once for all its sites."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from kleak.model.session import Session

T = TypeVar("T")

_CPU = re.compile(r"cpu: (\d+)")


def once_per_session(function: Callable[[Session], T]) -> Callable[[Session], T]:
    """Remember what ``function`` returned for the session it saw last.

    A witness is asked about thousands of sites of one session, and reads the same text each time.
    A session in which only the cycles are others, those of one module, is the same; ``function``
    may not read them.
    """
    last: list[tuple[Session, T]] = []

    def remembered(session: Session) -> T:
        known = last[0][0] if last else None
        if (
            known is None
            or known.circumstances is not session.circumstances
            or known.sites is not session.sites
        ):
            last[:] = [(session, function(session))]
        return last[0][1]

    return remembered


def texts(session: Session, witness: str) -> list[str]:
    """Return all answers of a witness, the first first."""
    return [answer.text for answer in session.circumstances.answers if answer.witness == witness]


def first_and_last(session: Session, witness: str) -> tuple[str, str] | None:
    """Return what a witness said before the first cycle and after the last settle, if it did."""
    found = texts(session, witness)
    return (found[0], found[-1]) if len(found) > 1 else None


@once_per_session
def cpus(session: Session) -> int:
    """Return how many CPUs keep pages and slabs of their own; 1 where nothing tells."""
    reports = texts(session, "zoneinfo")[:1]
    return 1 + max((int(cpu) for text in reports for cpu in _CPU.findall(text)), default=0)
