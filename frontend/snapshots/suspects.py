"""What a report says against a line of code, in a form that the reports share; and its weight.

Weights are natural log-odds, as in kleak.analysis.weights; the sum over a suspect's evidence,
the prior included, gives its score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from kleak.model.session import Frame, Tally
from kleak.snapshots.trend import MIN_SNAPSHOTS, Trend


class Fact(Enum):
    """All that a snapshot report can find: (weight, the reason for the weight)."""

    PRIOR = (-2.0, "most memory that is held is held on purpose")

    APPEARED = (1.0, "was not there at first, is there at the end; so is much that is innocent")
    GREW_EACH_STEP_EQUALLY = (2.5, "three steps or more, each left the same number behind")
    GREW_EACH_STEP = (2.0, "three steps or more, each left something behind")
    GREW_IN_SOME_STEPS = (1.2, "two steps or more: a leak that takes a condition, or a cache")
    GREW_IN_FIRST_STEP = (-2.5, "set up once and kept")
    GREW_IN_LAST_STEP = (-1.0, "most probably not freed yet")
    GREW_ONCE = (0.0, "one step cannot tell a leak from set-up")
    TREND = (2.5, "the counter grows by more than noise")
    NO_TREND = (-1.5, "the counter grew, but not by more than noise")

    CODE_GONE = (2.5, "the code that could free it is no longer loaded")
    TEXT_GONE = (
        2.2,
        "a bare address: of an unloaded module, or the init text of a loaded one; between two "
        "looks around a load and unload the first is far commoner",
    )
    CODE_LOADED = (-0.5, "the module is still loaded and may use it")
    COMES_AND_GOES = (-0.5, "others of the same caller were freed: a free path exists")
    TASK_STACK = (-2.5, "goes with its task")
    MODULE_MEMORY = (-2.5, "the text and data of a module, not what it allocated")
    RECLAIMABLE = (-2.0, "the kernel gives this back when memory is short")

    UNREFERENCED_TWICE = (3.5, "two scans found no pointer to it")
    UNREFERENCED_ONCE = (2.0, "one scan found no pointer to it; a short-lived one can be missed")
    TRANSIENT = (-1.0, "kmemleak was wrong about others of this stack")

    UNKNOWN_SIZE = (0.0, "told, not weighed")

    KERNEL_SAYS = (4.5, "the kernel itself checked at unload and complained")


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact with the witness that found it and the sentence that tells it."""

    witness: str
    fact: Fact
    says: str


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
        return Finding(witness, Fact.GREW_ONCE, says)
    if steps >= 3 and len(grew) == steps:
        if len(set(added)) == 1:
            says = f"each of {steps} steps added {added[0]} {noun}"
            return Finding(witness, Fact.GREW_EACH_STEP_EQUALLY, says)
        return Finding(
            witness, Fact.GREW_EACH_STEP, f"each of {steps} steps added {noun}: {counts}"
        )
    if steps >= 3 and grew == [0]:
        return Finding(witness, Fact.GREW_IN_FIRST_STEP, f"only the first step added {noun}")
    if steps >= 3 and grew == [steps - 1]:
        return Finding(witness, Fact.GREW_IN_LAST_STEP, f"only the last step added {noun}")
    if len(grew) >= 2:
        says = f"{len(grew)} of {steps} steps added {noun}: {counts}"
        return Finding(witness, Fact.GREW_IN_SOME_STEPS, says)
    return Finding(witness, Fact.GREW_ONCE, f"one of {steps} steps added {noun}: {counts}")


def judge_trend(witness: str, trend: Trend, noun: str) -> Finding:
    """What a counter's trend says. The counter is in ``noun``, plural."""
    change = f"{trend.figures[0]:.0f} to {trend.figures[-1]:.0f} {noun}"
    if trend.grows is None:
        says = f"{change} over {len(trend.figures)} snapshots; {MIN_SNAPSHOTS} would show a trend"
        return Finding(witness, Fact.GREW_ONCE, says)
    interval = f"{trend.per_step:+.1f} a step (90 % interval {trend.low:+.1f} to {trend.high:+.1f})"
    if trend.grows:
        return Finding(witness, Fact.TREND, f"{change}, {interval}")
    return Finding(witness, Fact.NO_TREND, f"{change}, {interval}: not more than noise")
