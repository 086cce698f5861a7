"""The oldest outstanding allocations, picked while the map is read, against all of them sorted."""

from __future__ import annotations

import ctypes
import random
from collections import defaultdict
from collections.abc import Iterator

import pytest

from kleak.capture.engine.events import make_plan, read_btf
from kleak.capture.engine.headers import find_headers
from kleak.capture.engine.records import LedgerEntry
from kleak.capture.engine.tracer import Tracer
from kleak.capture.machine.kernel_state import read_kernel_table
from kleak.capture.scope import NamedScope

ENTRIES, BEFORE_NS = 40_009, 5000  # more than one read of the map brings


@pytest.fixture(scope="module")
def tracer() -> Iterator[Tracer]:
    """A tracer in whose scope nothing happens, with a ledger that was written here."""
    table = read_kernel_table()
    plan = make_plan(read_btf(), table, modules=False)
    symbols = NamedScope(("do_signalfd4",)).find(table).symbols
    chance = random.Random(3)
    with Tracer(plan, find_headers(), symbols=symbols) as tracer:
        ledger = tracer.table("outstanding")
        for number in range(ENTRIES):
            entry = ledger.Leaf(
                stack=1 << 63 | chance.randrange(11),
                family=chance.randrange(2),
                time_ns=chance.randrange(BEFORE_NS + 500),
                comm=b"somebody",
            )
            ledger[ctypes.c_uint64(~(0xFFFF888000000000 + 64 * number))] = entry
        yield tracer


@pytest.mark.parametrize("keep", [1, 7, 3000])
def test_oldest_of_each_stack_and_family(tracer: Tracer, keep: int) -> None:
    every: defaultdict[tuple[int, str], list[LedgerEntry]] = defaultdict(list)
    for entry in tracer.outstanding():
        if entry.time_ns < BEFORE_NS:
            every[entry.stack, entry.family].append(entry)
    oldest: defaultdict[tuple[int, str], list[LedgerEntry]] = defaultdict(list)
    for entry in tracer.oldest(keep, BEFORE_NS):
        oldest[entry.stack, entry.family].append(entry)
    assert oldest.keys() == every.keys()
    for place, entries in oldest.items():
        times = sorted(entry.time_ns for entry in every[place])
        assert sorted(entry.time_ns for entry in entries) == times[:keep]
        assert set(entries) <= set(every[place])
