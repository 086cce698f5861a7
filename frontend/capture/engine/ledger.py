"""The ledger of outstanding allocations (bpf/ledger.h), as its map has it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from heapq import heappush, heapreplace
from itertools import compress, count, repeat
from operator import lt
from typing import Any

from kleak.capture.engine.bpf_maps import Map, Rows
from kleak.capture.engine.declared import FAMILIES
from kleak.capture.engine.records import LedgerEntry

_PAGE_BYTES = os.sysconf("SC_PAGESIZE")
_KEY_BITS = 3  # bits that bpf/percpu.c, pages.c and dma_pool.c set in a key

CycleOf = Callable[[int], int]
"""The cycle that allocations were booked under, by the number in the map."""


def every_entry(ledger: Map, cycle_of: CycleOf) -> Iterator[LedgerEntry]:
    """Return the outstanding allocations, in no order."""
    for key, leaf in ledger.rows():
        yield _entry(key, leaf, cycle_of)


def oldest_entries(
    ledger: Map, cycle_of: CycleOf, keep: int, before_ns: int
) -> Iterator[LedgerEntry]:
    """Return the ``keep`` oldest of each stack and family among the outstanding allocations that
    were made before ``before_ns``, in no order.
    """
    kept: dict[tuple[int, int], list[tuple[int, int, bytes]]] = {}
    limits: dict[tuple[int, int], int] = {}
    for rows in _read_ahead(ledger.batches()):
        keys, stacks, families, times = rows.columns(("key",), ("stack", "family", "time_ns"))
        # Lazily, so that each row meets the limits that the ones before it set; and without a line
        # of Python for the many rows that are too young.
        limit_of = map(limits.get, zip(stacks, families, strict=True), repeat(before_ns))
        for row in compress(count(), map(lt, times, limit_of)):
            place = stacks[row], families[row]
            kept_one = (-times[row], keys[row], rows.value(row))
            of_stack = kept.get(place)
            if of_stack is None:
                of_stack = kept[place] = []
            if len(of_stack) < keep:
                heappush(of_stack, kept_one)
            else:
                heapreplace(of_stack, kept_one)
            if len(of_stack) == keep:
                limits[place] = -of_stack[0][0]
    for of_stack in kept.values():
        for _, key, leaf in of_stack:
            yield _entry(key, ledger.Leaf.from_buffer_copy(leaf), cycle_of)


def _read_ahead(batches: Iterator[Rows]) -> Iterator[Rows]:
    """Have the kernel copy the next rows while these are looked at."""
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(next, batches, None)
        while (rows := ahead.result()) is not None:
            ahead = reader.submit(next, batches, None)
            yield rows


def key_address(key: int) -> int:
    """The address whose ledger_key() of bpf/ledger.h is ``key``."""
    return key ^ (1 << 64) - 1


def filter_slot(address: int, slots: int) -> int:
    """filter_slot() of bpf/ledger.h."""
    spread = ((address >> 12) * 0x9E3779B97F4A7C15 & (1 << 64) - 1) >> 40
    return (spread ^ address >> 6 & 63) & (slots - 1)


def _entry(key: int, leaf: Any, cycle_of: CycleOf) -> LedgerEntry:
    return LedgerEntry(
        key_address(key) & ~_KEY_BITS,
        leaf.stack,
        leaf.size,
        leaf.requested,
        leaf.time_ns,
        cycle_of(leaf.cycle),
        FAMILIES[leaf.family],
        leaf.tgid,
        leaf.comm.decode(errors="replace"),
        _held_page(leaf) if FAMILIES[leaf.family] == "pages" else 0,
    )


def _held_page(leaf: Any) -> int | None:
    """The first page of a block that is still held. bpf/pages.c has bits for blocks of up to 64."""
    if leaf.pieces:
        return int(~leaf.pieces & (leaf.pieces + 1)).bit_length() - 1
    return 0 if leaf.size == _PAGE_BYTES << leaf.order else None
