"""What a capture did to a module's calls: which could fail, which failed, what came of each.

Plain data, kept in the session.
"""

from __future__ import annotations

from dataclasses import dataclass

from kleak.model.frame import Frame

LOAD = "load"
EXERCISE = "exercise"
UNLOAD = "unload"


@dataclass(frozen=True, slots=True)
class FailedCall:
    """A call in the module that can be made to fail. ``number`` counts from 1.

    ``returns`` is what ``function`` returns then. ``place`` is behind the call. ``made``: how often
    the call was made in the first cycle, up to the unload.
    """

    number: int
    function: str
    returns: str
    place: Frame
    made: int = 0


@dataclass(frozen=True, slots=True)
class NotTried:
    """A function that the module calls in ``calls`` places and that was not failed: ``why``."""

    function: str
    calls: int
    why: str


@dataclass(frozen=True, slots=True)
class Failure:
    """What fails: the ``nth`` time that the call with the number ``call`` is made in a cycle."""

    call: int
    nth: int


@dataclass(frozen=True, slots=True)
class Injection:
    """One cycle in which a call failed. ``cycle`` is None where it was never loaded.

    ``phase`` is what reported a failure, LOAD, EXERCISE or UNLOAD, with what it ``said``; None
    where nothing did. ``reached``: whether the call was made so often; None where that could not be
    read. ``complaints`` is what the kernel logged that is a bug whatever failed. ``crash`` says in
    a line why nothing could be tried after it.
    """

    failure: Failure
    cycle: int | None
    phase: str | None = None
    said: str = ""
    reached: bool | None = None
    complaints: str = ""
    crash: str | None = None


@dataclass(frozen=True, slots=True)
class FaultRun:
    """All of it. ``left`` are planned failures that were not tried, in order."""

    calls: tuple[FailedCall, ...]
    not_tried: tuple[NotTried, ...]
    injections: tuple[Injection, ...]
    left: tuple[Failure, ...]

    @property
    def tried(self) -> tuple[Failure, ...]:
        """The failures that were tried, in the order of their first time."""
        return tuple(dict.fromkeys(one.failure for one in self.injections))
