"""What a report says against a line of code, in a form that the reports share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from kleak.analysis.findings import Finding
from kleak.analysis.trend import MIN_SNAPSHOTS, Trend
from kleak.analysis.weights import Fact
from kleak.model.session import Frame, Tally
from kleak.units import size


@dataclass(frozen=True, slots=True)
class Suspect:
    """One place that may leak, as one report sees it.

    ``frames`` is innermost first without the allocator's own (those are in
    ``allocator_frames``); empty where the report names no code. ``cache`` is the slab cache
    that the objects are in, where the report tells. ``per_step`` is what each step between two
    snapshots added and kept, None where the report cannot tell. ``addresses`` are real ones.
    """

    allocator: str
    frames: tuple[Frame, ...]
    outstanding: Tally
    findings: tuple[Finding, ...]
    per_step: tuple[Tally, ...] | None = None
    allocator_frames: tuple[Frame, ...] = ()
    cache: str | None = None
    addresses: frozenset[int] = frozenset()


def steps_of(levels: Sequence[Tally]) -> tuple[Tally, ...] | None:
    """What each step added to a counter, None if it also fell: then no step can be told apart."""
    steps = tuple(
        Tally(later.count - earlier.count, later.size_bytes - earlier.size_bytes)
        for earlier, later in pairwise(levels)
    )
    falls = any(step.count < 0 or step.size_bytes < 0 for step in steps)
    return None if falls else steps


def judge_steps(witness: str, added: Sequence[int], noun: str) -> Finding:
    """What the numbers kept from each step say. ``noun`` names what is counted, plural."""
    grew = [position for position, count in enumerate(added) if count > 0]
    counts = ", ".join(str(count) for count in added)
    steps = len(added)
    if steps == 1:
        says = "two snapshots cannot show growth, take more"
        return Finding(witness, Fact.ONE_STEP, says)
    if steps >= 3 and len(grew) == steps:
        if len(set(added)) == 1:
            says = f"each of {steps} steps added {added[0]} {noun}"
            return Finding(witness, Fact.EVERY_CYCLE_EQUAL, says)
        return Finding(witness, Fact.EVERY_CYCLE, f"each of {steps} steps added {noun}: {counts}")
    if steps >= 3 and grew == [0]:
        return Finding(witness, Fact.FIRST_STEP, f"only the first step added {noun}")
    if steps >= 3 and grew == [steps - 1]:
        return Finding(witness, Fact.LAST_STEP, f"only the last step added {noun}")
    if len(grew) >= 2:
        says = f"{len(grew)} of {steps} steps added {noun}: {counts}"
        return Finding(witness, Fact.SOME_CYCLES, says)
    return Finding(witness, Fact.ONE_STEP, f"one of {steps} steps added {noun}: {counts}")


def judge_trend(witness: str, trend: Trend, noun: str) -> Finding:
    """What a counter's trend says. The counter is in ``noun``, plural."""
    change = f"{trend.figures[0]:.0f} to {trend.figures[-1]:.0f} {noun}"
    if trend.grows is None:
        says = f"{change} over {len(trend.figures)} snapshots; {MIN_SNAPSHOTS} would show a trend"
        return Finding(witness, Fact.ONE_STEP, says)
    interval = f"{trend.per_step:+.1f} a step (90 % interval {trend.low:+.1f} to {trend.high:+.1f})"
    if trend.grows:
        return Finding(witness, Fact.TREND, f"{change}, {interval}")
    return Finding(witness, Fact.NO_TREND, f"{change}, {interval}: not more than noise")


# So little may be warm-up, however evenly it rises: the quickest real leaks of a few bytes an
# event take hours to get there, and dated loops are made of machines where memory matters.
_LEAST_RISE_BYTES = 16 << 20
# A last step that is less than this part of the typical one: what fills up slows down.
_NO_SLOWER = 0.25


def judge_rise(witness: str, levels: Sequence[int], what: str) -> Finding | None:
    """That a level of unreclaimable memory rose in every step, three or more, and did not slow.

    ``levels`` are bytes. None where it did not, or by too little to tell.
    """
    steps = [later - earlier for earlier, later in pairwise(levels)]
    if len(levels) < MIN_SNAPSHOTS or min(steps) <= 0:
        return None
    if levels[-1] - levels[0] < _LEAST_RISE_BYTES:
        return None
    typical = sorted(steps)[len(steps) // 2]
    if steps[-1] < _NO_SLOWER * typical:
        return None
    says = (
        f"{what} rose in each of {len(steps)} steps, by {size(typical)} a step, and nothing gives "
        "it back"
    )
    return Finding(witness, Fact.UNRECLAIMABLE_RISES, says)
