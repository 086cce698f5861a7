"""Which stacks are walked where everything is in scope: bpf/sampling.h. The counts are exact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Protocol

from kleak.capture.engine.declared import SHARE_SLOTS
from kleak.capture.engine.records import StackTotal

WALK_EVERY = 256
"""Of the allocations of a call site, one in so many has its stack walked."""
WALK_GROWING = 8
"""One in so many of a call site that grows."""
CLOCK_MONOTONIC_COARSE = 6  # include/uapi/linux/time.h: as of the last tick
_GOLDEN = 0x9E3779B97F4A7C15


class Walker(Protocol):
    """What can be told to walk more; :class:`kleak.capture.engine.tracer.Tracer` is one."""

    def walk_more(self, call_sites: Iterable[int]) -> None:
        """Walk one in WALK_GROWING allocations of these call sites, and of no others."""


def is_call_site(stack: int) -> bool:
    """Whether a key that allocations are booked under is a call site, and not a walked stack.

    For stacks that are sampled only: else any bit of a key may be set.
    """
    return bool(stack >> 63)


def share_of(one_in: int) -> int:
    """What bpf/sampling.h compares with to walk one in so many."""
    return 0xFFFFFFFF // one_in


def slot_of(call_site: int) -> int:
    """Where bpf/sampling.h looks for the share of a call site."""
    return (call_site * _GOLDEN & (1 << 64) - 1) >> 52 & (SHARE_SLOTS - 1)


def outstanding_by_call_site(
    totals: Iterable[StackTotal], call_sites: Mapping[int, int]
) -> Counter[int]:
    """Objects outstanding of each call site. ``call_sites`` has those of walked stacks."""
    counts: Counter[int] = Counter()
    for row in totals:
        call_site = row.stack if is_call_site(row.stack) else call_sites.get(row.stack, 0)
        if call_site:
            counts[call_site] += row.outstanding
    return counts


class Growth:
    """Has the stacks of call sites walked more often while more is outstanding than ever before.

    Not while it grows: half of all busy call sites do, from one look to the next.
    """

    def __init__(self, walker: Walker) -> None:
        """Nothing was outstanding yet."""
        self._walker = walker
        self._most: dict[int, int] = {}

    def note(self, outstanding: Mapping[int, int]) -> None:
        """Take in how many objects are outstanding now, by call site."""
        higher = {site: n for site, n in outstanding.items() if n > self._most.get(site, 0)}
        self._most |= higher
        self._walker.walk_more(higher)
