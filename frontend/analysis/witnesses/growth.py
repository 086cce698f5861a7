"""Witness: what each cycle left behind.

A leak grows with the cycles, set-up does not. Counts decide, not bytes: a leak is a path that
was taken, and it may ask for another size each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low

from kleak.analysis.findings import Finding
from kleak.analysis.weights import Fact
from kleak.model.session import Session, TracedSite

NAME = "growth"

SHOWN_CYCLES = 12


def judge(site: TracedSite, session: Session) -> Finding:
    """Judge by the numbers of objects kept, in order of the cycles that allocated them.

    A cycle that failed before this site was reached is left out: it had no chance to leak.
    """
    counts = tuple(
        tally.outstanding.count
        for tally, cycle in zip(site.cycles, session.cycles, strict=True)
        if cycle.failure is None or tally.allocated.count
    )
    fact = classify(counts)
    return Finding(NAME, fact, _say(fact, counts))


def classify(counts: Sequence[int]) -> Fact:
    """The pattern of objects kept per cycle. At least one of ``counts`` is above zero."""
    total = len(counts)
    left = [position for position, count in enumerate(counts) if count > 0]
    if total == 1:
        return Fact.ONE_CYCLE
    if len(left) == total:
        if total == 2:
            return Fact.BOTH_CYCLES
        if _fades(counts):
            return Fact.PLATEAU
        return Fact.EVERY_CYCLE_EQUAL if len(set(counts)) == 1 else Fact.EVERY_CYCLE
    if left == [0]:
        return Fact.FIRST_OF_TWO if total == 2 else Fact.FIRST_CYCLE
    if left == [total - 1]:
        return Fact.LAST_CYCLE
    if len(left) == 1:
        return Fact.ONE_LATER_CYCLE
    if left == [0, total - 1]:
        return Fact.FIRST_AND_LAST
    if left == list(range(len(left))):
        # Filled up in the first cycles; one even cycle behind equal ones is no end of growth.
        shrinking = all(counts[i] > counts[i + 1] for i in range(len(left)))
        if shrinking or total - len(left) >= len(left):
            return Fact.PLATEAU
    return Fact.SOME_CYCLES


def _fades(counts: Sequence[int]) -> bool:
    """Whether the counts only ever fall, and go on falling behind the first cycle.

    A set-up in the first cycle over a steady leak does not fade: its tail stays level. Three
    numbers fall by chance too often.
    """
    tail = counts[1:]
    falling = all(one >= two for one, two in zip(counts, tail, strict=False))
    return len(counts) > 3 and falling and 2 * tail[-1] < tail[0]


def _say(fact: Fact, counts: Sequence[int]) -> str:
    total = len(counts)
    left = sum(count > 0 for count in counts)
    shown = _listed(counts)
    if fact is Fact.ONE_CYCLE:
        return "one cycle cannot show growth"
    if fact is Fact.EVERY_CYCLE_EQUAL:
        return f"+{counts[0]} in every one of {total} cycles"
    if fact is Fact.EVERY_CYCLE:
        rate = f"+{median_low(counts[1:])} a cycle, typically"
        return f"grew in every one of {total} cycles ({shown}): {rate}"
    if fact is Fact.BOTH_CYCLES:
        return f"grew in both cycles ({shown})"
    if fact is Fact.SOME_CYCLES:
        rate = f"{sum(counts)} in {total} cycles"
        return f"grew in {left} of {total} cycles ({shown}): {rate}"
    if fact is Fact.ONE_LATER_CYCLE:
        position = next(i for i, count in enumerate(counts, start=1) if count)
        return f"grew in cycle {position} of {total} only"
    if fact is Fact.FIRST_AND_LAST:
        return f"grew in the first and the last cycle only ({shown})"
    if fact is Fact.LAST_CYCLE:
        return f"only the last of {total} cycles left anything: a free may still be to come"
    if fact in (Fact.FIRST_CYCLE, Fact.FIRST_OF_TWO):
        later = "the other one" if total == 2 else f"the {total - 1} later ones"
        return f"only the first cycle left anything, {later} nothing: set up once"
    return f"growth came to an end ({shown}): a pool or cache that is full"


def _listed(counts: Sequence[int]) -> str:
    if len(counts) <= SHOWN_CYCLES:
        return ", ".join(str(count) for count in counts)
    head = ", ".join(str(count) for count in counts[: SHOWN_CYCLES - 2])
    return f"{head}, ... {counts[-1]}"
