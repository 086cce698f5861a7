"""Which calls fail, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from kleak.model.faults import FailedCall, Failure

CYCLES_OF_A_SUSPECT = 4
"""So often a failure that left something is repeated in all: growth needs 3 cycles to be judged,
and what comes late, or once, needs one more to show."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which failures are wanted. ``every``: each time that a call is made, not the first, second
    and last only. ``only``: globs of functions that fail, or that call them. ``limit``: at most so
    many.
    """

    every: bool = False
    only: tuple[str, ...] = ()
    limit: int | None = None

    def wants(self, call: FailedCall) -> bool:
        """Whether a call is among those that may fail."""
        names = {call.function, call.place.symbol or ""}
        return not self.only or any(
            fnmatchcase(name, pattern) for name in names for pattern in self.only
        )


def plan(calls: Sequence[FailedCall], choice: Choice) -> list[Failure]:
    """Return the failures to try: the first of each call, then the others.

    A limit so takes from all calls before it takes twice from one.
    """
    rounds: list[list[Failure]] = []
    for call in filter(choice.wants, calls):
        times = range(1, call.made + 1)
        chosen = times if choice.every else sorted({1, 2, call.made} & set(times))
        for turn, nth in enumerate(chosen):
            if turn == len(rounds):
                rounds.append([])
            rounds[turn].append(Failure(call.number, nth))
    return [failure for turn in rounds for failure in turn][: choice.limit]
