"""What an examination of the machine found. Plain data; kleak.capture.machine.doctor makes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """Whether a thing is there, is there with limits, or is not."""

    YES = "yes"
    DEGRADED = "degraded"
    NO = "no"


MODULE = "module"
RUN = "run"
BOTH = (MODULE, RUN)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    ``found`` is what was seen, ``effect`` what that does to a result, ``mend`` the one command or
    option that changes it, where there is one. Where ``state`` is NO, the commands that
    ``needed_by`` names cannot run.
    """

    area: str
    name: str
    state: State
    found: str
    effect: str = ""
    mend: str = ""
    needed_by: tuple[str, ...] = ()


def obstacles(checks: Iterable[Check], command: str) -> list[Check]:
    """Return what keeps ``kleak COMMAND`` from running here; none if it can."""
    return [check for check in checks if check.state is State.NO and command in check.needed_by]


@dataclass(frozen=True, slots=True)
class Subject:
    """Something to be looked at; its checks differ in what was found.

    ``effect`` and ``needed_by``: see Check. They are those of a subject that is not simply there.
    """

    area: str
    name: str
    effect: str = ""
    needed_by: tuple[str, ...] = ()

    def yes(self, found: str, effect: str = "") -> Check:
        """It is there."""
        return Check(self.area, self.name, State.YES, found, effect, needed_by=self.needed_by)

    def degraded(self, found: str, mend: str = "", *, effect: str | None = None) -> Check:
        """It is there with limits, and keeps no command from running."""
        effect = self.effect if effect is None else effect
        return Check(self.area, self.name, State.DEGRADED, found, effect, mend)

    def no(self, found: str, mend: str = "", *, effect: str | None = None) -> Check:
        """It is not there."""
        effect = self.effect if effect is None else effect
        return Check(self.area, self.name, State.NO, found, effect, mend, self.needed_by)
