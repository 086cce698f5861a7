"""Which facts tell the same thing, and which contradict one another."""

from __future__ import annotations

from dataclasses import dataclass

from kleak.analysis.weights import Fact


@dataclass(frozen=True, slots=True)
class Correlation:
    """Facts that tell the same thing more than once, and what they count together at most.

    ``cap`` is None where the strongest alone counts. What speaks against a leak is never cut.
    """

    name: str
    facts: frozenset[Fact]
    cap: float | None = None
    cap_lossy: float | None = None


_GROWTH = frozenset(
    {
        Fact.ONE_CYCLE, Fact.EVERY_CYCLE_EQUAL, Fact.EVERY_CYCLE, Fact.BOTH_CYCLES,
        Fact.SOME_CYCLES, Fact.ONE_LATER_CYCLE, Fact.FIRST_AND_LAST, Fact.LAST_CYCLE,
        Fact.FIRST_OF_TWO, Fact.FIRST_CYCLE, Fact.PLATEAU,
    }
)  # fmt: skip
GROWN = Correlation(
    "growth", frozenset({Fact.EVERY_CYCLE_EQUAL, Fact.EVERY_CYCLE, Fact.SOME_CYCLES, Fact.TREND})
)
OWNER_GONE = Correlation("code gone", frozenset({Fact.CODE_GONE, Fact.TEXT_GONE}))
NO_POINTER = Correlation(
    "reachability", frozenset({Fact.UNREFERENCED_ONCE, Fact.UNREFERENCED_TWICE})
)
COMPLAINT = Correlation("the kernel's complaint", frozenset({Fact.KERNEL_SAYS}))
LEDGER = Correlation(
    "ledger",
    _GROWTH
    | {
        Fact.SURVIVED_UNLOAD, Fact.SURVIVED_LOSSY, Fact.STILL_LOADED, Fact.STILL_ALLOCATED,
        Fact.NONE_FREED, Fact.SOME_FREED, Fact.RARELY_KEPT, Fact.IN_FLIGHT,
    },
    3.5,
    2.5,
)  # fmt: skip
COUNTERS = Correlation(
    "kernel's counters",
    frozenset(
        {
            Fact.PAGES_HELD, Fact.PAGES_FREE, Fact.PAGES_OWNED, Fact.PAGES_REUSED, Fact.TAG_LEFT,
            Fact.ROWS_GREW, Fact.ROWS_DID_NOT_GROW, Fact.CACHE_GREW, Fact.CACHE_DID_NOT_GROW,
            Fact.CLASS_GREW, Fact.CLASS_DID_NOT_GROW,
        }
    ),
    0.5,
)  # fmt: skip
CORRELATIONS = (GROWN, OWNER_GONE, NO_POINTER, COMPLAINT, LEDGER, COUNTERS)
KINDS = (GROWN, OWNER_GONE, NO_POINTER, COMPLAINT)
"""Evidence of snapshots that does not tell the same thing: two of these confirm a leak."""

NO_HOLDER = frozenset({Fact.UNREFERENCED, Fact.UNHELD})
A_HOLDER = frozenset({Fact.REFERENCED, Fact.REFERENCED_LARGE, Fact.HELD, Fact.HELD_IN_USE})
"""The two answers of kmemleak, and of kleak's own search, to one question."""

# What says, without the ledger, that the memory is there, and what says that it is not: a site
# with both is told to be disputed.
STILL_THERE = frozenset(
    {
        Fact.UNREFERENCED,
        Fact.REFERENCED,
        Fact.REFERENCED_LARGE,
        Fact.OWN_REFERENCE,
        Fact.UNHELD,
        Fact.HELD,
        Fact.HELD_IN_USE,
        Fact.REGION_THERE,
        Fact.PAGES_OWNED,
        Fact.TAG_LEFT,
        Fact.CACHE_LEFT,
        Fact.ROWS_GREW,
        Fact.CACHE_GREW,
        Fact.CLASS_GREW,
        Fact.NAME_STAYS,
    }
)
NOT_THERE = frozenset(
    {
        Fact.NOT_TRACKED,
        Fact.REGION_GONE,
        Fact.PAGES_FREE,
        Fact.PAGES_REUSED,
        Fact.ROWS_DID_NOT_GROW,
        Fact.CACHE_DID_NOT_GROW,
        Fact.CLASS_DID_NOT_GROW,
    }
)
