"""What is concluded of the error paths of a module. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kleak.model.faults import FailedCall, NotTried


class Outcome(Enum):
    """What came of a failure, the worst first."""

    CRASHED = "crashed"
    LEAKING = "leaking"
    COMPLAINED = "complained"
    SUSPECT = "suspect"
    CLEAN = "clean"
    TOLERATED = "tolerated"
    NOT_REACHED = "not reached"

    @property
    def is_found(self) -> bool:
        """Whether something is wrong with the error path, whatever verdicts count."""
        return self in (Outcome.CRASHED, Outcome.COMPLAINED)


@dataclass(frozen=True, slots=True)
class ErrorPath:
    """One failure that was tried ``times`` times: the ``nth`` time that ``call`` is made.
    ``number`` is the one that its sites have, from 1.

    ``phase`` is what reported a failure ("load", "exercise", "unload"), with what it ``said``; None
    where all went on. ``when`` says it in a line. ``log`` is what the kernel complained of;
    ``crash`` why nothing could be tried after it.
    """

    number: int
    call: FailedCall
    nth: int
    outcome: Outcome
    times: int
    phase: str | None
    said: str
    when: str
    log: str
    crash: str | None


@dataclass(frozen=True, slots=True)
class ErrorPaths:
    """All that were tried, in that order. ``unreached`` are calls that were not made; ``left`` are
    failures (call and time) that are planned; ``calls`` is how many calls could fail.
    """

    paths: tuple[ErrorPath, ...]
    unreached: tuple[FailedCall, ...]
    not_tried: tuple[NotTried, ...]
    left: tuple[tuple[FailedCall, int], ...]
    calls: int

    @property
    def is_found(self) -> bool:
        """Whether an error path crashed or made the kernel complain, whatever leaks."""
        return any(path.outcome.is_found for path in self.paths)

    def count(self, outcome: Outcome) -> int:
        """How many failures came out so."""
        return sum(path.outcome is outcome for path in self.paths)
