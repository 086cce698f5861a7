"""Keeping the totals and stacks of a capture that lasts for days from filling up.

A row of totals of which nothing is outstanding, and a stack without rows, are dropped. The kernel
goes on booking meanwhile, on any CPU, so a row may only go when nothing can be booked on it any
more. Hence epochs: dropping begins with a new number for what is allocated from now on, which
makes new rows. Once all programs that saw the old number have ended, the old rows get no more
allocations, and where as many were freed as allocated no more frees either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from kleak.capture.engine.bpf_maps import Map
from kleak.capture.engine.records import StackTotal
from kleak.capture.machine.settle import wait_for_grace_period


class Epochs:
    """Which cycle the numbers that the kernel books under belong to, and what rows that were
    dropped had of stacks that are still there.
    """

    def __init__(self) -> None:
        """No epoch has begun: the numbers that are booked under are those of the cycles."""
        self._cycles: dict[int, int] = {}
        self._last = 0
        self._dropped: dict[tuple[int, int, str], StackTotal] = {}

    def begin(self, cycle: int) -> int:
        """Return a number that was not used before, for allocations of ``cycle``."""
        self._last += 1
        self._cycles[self._last] = cycle
        return self._last

    def cycle_of(self, number: int) -> int:
        """Return the cycle that a number stands for."""
        return self._cycles.get(number, number)

    def dropped(self) -> Iterator[StackTotal]:
        """Return what was allocated and freed on rows that are gone."""
        yield from self._dropped.values()

    def keep(self, row: StackTotal) -> None:
        """Note what a row had that is dropped now."""
        key = (row.stack, row.cycle, row.family)
        before = self._dropped.get(key)
        if before is not None:
            row = replace(
                row,
                allocated=row.allocated + before.allocated,
                allocated_bytes=row.allocated_bytes + before.allocated_bytes,
                allocated_requested=row.allocated_requested + before.allocated_requested,
                freed=row.freed + before.freed,
                freed_bytes=row.freed_bytes + before.freed_bytes,
                freed_requested=row.freed_requested + before.freed_requested,
            )
        self._dropped[key] = row

    def forget(self, stacks: set[int], numbers: set[int]) -> None:
        """Forget rows of stacks that are not among ``stacks``, and numbers not in use."""
        self._dropped = {key: row for key, row in self._dropped.items() if key[0] in stacks}
        self._cycles = {
            number: cycle
            for number, cycle in self._cycles.items()
            if number in numbers or number == self._last
        }


def _drop_stacks(table: Map, needed: set[int]) -> dict[int, Any]:
    """Take all stacks that are not ``needed`` out of the map; return them by their keys."""
    gone = {}
    for key in [key for key, _ in table.rows()]:
        if key not in needed:
            gone[key] = table.pop(table.Key(key))
    return gone


def evict(
    maps: Mapping[str, Map],
    epochs: Epochs,
    current: int,
    total_of: Callable[[Any, Any], StackTotal],
) -> int:
    """Drop totals and stacks of which nothing is outstanding; return how many stacks went.

    Allocations are booked under ``current``, a number that has just begun. ``total_of`` makes a
    record of a row's key and value.
    """
    totals, stacks = maps["totals"], maps["stacks"]
    wait_for_grace_period()
    needed: set[int] = set()
    numbers: set[int] = set()
    over = []
    for key, leaf in totals.rows():
        if key.cycle < current and leaf.allocated == leaf.freed:
            over.append((key, leaf))
        else:
            needed.add(key.stack)
            numbers.add(key.cycle)
    for key, leaf in over:
        del totals[key]
        if key.stack in needed:
            epochs.keep(total_of(key, leaf))
    epochs.forget(needed, numbers)
    gone = _drop_stacks(stacks, needed)
    # A program may have found a stack there just before, and made a row for it just after.
    wait_for_grace_period()
    wanted = {key.stack for key, _ in totals.rows()}.intersection(gone)
    for stack in wanted:
        stacks[stacks.Key(stack)] = gone[stack]
    return len(gone) - len(wanted)
