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
class Finding:
    """One thing that was looked at.

    ``found`` is what was seen, ``means`` what that does to a result, ``mend`` the one command or
    option that changes it, where there is one. Where ``state`` is NO, the commands that
    ``needed_by`` names cannot run.
    """

    area: str
    name: str
    state: State
    found: str
    means: str = ""
    mend: str = ""
    needed_by: tuple[str, ...] = ()


def obstacles(findings: Iterable[Finding], command: str) -> list[Finding]:
    """Return what keeps ``kleak COMMAND`` from running here; none if it can."""
    return [
        finding
        for finding in findings
        if finding.state is State.NO and command in finding.needed_by
    ]
