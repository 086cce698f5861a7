"""The ledger of outstanding allocations (bpf/ledger.h), as its map has it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from heapq import heappush, heapreplace
from typing import Any

from kleak.capture.bpf_maps import Map
from kleak.capture.records import LedgerEntry

# enum family of bpf/record.h, in its order.
FAMILIES = (
    "kmalloc",
    "kmem_cache",
    "vmap_area",
    "pages",
    "percpu",
    "dma",
    "reclaimable_cache",
    "dma_pool",
)
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
    for rows in ledger.batches():
        keys, *places, times = rows.columns(("key",), ("stack", "family", "time_ns"))
        every = zip(zip(*places, strict=True), times, strict=True)
        for row, (place, time_ns) in enumerate(every):
            if time_ns >= limits.get(place, before_ns):
                continue
            of_stack = kept.setdefault(place, [])
            kept_one = (-time_ns, keys[row], rows.value(row))
            if len(of_stack) < keep:
                heappush(of_stack, kept_one)
            else:
                heapreplace(of_stack, kept_one)
            if len(of_stack) == keep:
                limits[place] = -of_stack[0][0]
    for of_stack in kept.values():
        for _, key, leaf in of_stack:
            yield _entry(key, ledger.Leaf.from_buffer_copy(leaf), cycle_of)


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
