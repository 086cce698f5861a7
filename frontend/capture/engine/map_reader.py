"""What the programs wrote into the maps, as plain records."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

from kleak.capture.engine.bpf_maps import Map
from kleak.capture.engine.declared import FAMILIES, MAX_LOADS
from kleak.capture.engine.eviction import Epochs
from kleak.capture.engine.ledger import every_entry, oldest_entries
from kleak.capture.engine.records import LedgerEntry, LoadRecord, StackTotal
from kleak.capture.engine.sampling import is_call_site
from kleak.symbols.kernel_table import TextRange


class MapReader:
    """Reads the ledger, its totals and its stacks, and the loads of modules."""

    def __init__(self, walk_every: int) -> None:
        """There are no maps yet. ``walk_every``: one stack in so many was walked."""
        self.walk_every = walk_every
        self._maps: dict[str, Map] = {}
        self._epochs = Epochs()

    def table(self, name: str) -> Map:
        """Return a map, for what has a module of its own here."""
        return self._maps[name]

    @property
    def map_bytes(self) -> dict[str, int]:
        """Memory of each map, by its name."""
        return {name: opened.memory_bytes for name, opened in self._maps.items()}

    def loads(self) -> tuple[LoadRecord, ...]:
        """Return the loads of modules in scope, first one first."""
        if "loads" not in self._maps:
            return ()
        count = self._maps["scopes"][ctypes.c_int(0)].loads
        table = self._maps["loads"]
        found = []
        for number in range(min(count, MAX_LOADS)):
            leaf = table[ctypes.c_int(number)]
            if leaf.cycle != number + 1:  # being written just now, on another CPU
                break
            found.append(_module_load(leaf))
        return tuple(found)

    def totals(self) -> list[StackTotal]:
        """Return the totals of every stack in every cycle; there may be several rows of one."""
        rows = [self._total(key, leaf) for key, leaf in self._maps["totals"].rows()]
        return [*rows, *self._epochs.dropped()]

    def _total(self, key: Any, leaf: Any) -> StackTotal:
        return StackTotal(
            key.stack,
            self._epochs.cycle_of(key.cycle),
            FAMILIES[key.family],
            leaf.allocated,
            leaf.allocated_bytes,
            leaf.allocated_requested,
            leaf.freed,
            leaf.freed_bytes,
            leaf.freed_requested,
        )

    def stack(self, key: int) -> tuple[int, ...]:
        """Return one stack, of a call site alone that. Raises KeyError if there is none."""
        if self.is_call_site(key):
            return (key,)
        table = self._maps["stacks"]
        leaf = table[table.Key(key)]
        return tuple(leaf.frames[: leaf.depth])

    def stacks(self) -> dict[int, tuple[int, ...]]:
        """Return the stacks by their key: return addresses, innermost first."""
        return {key: tuple(leaf.frames[: leaf.depth]) for key, leaf in self._maps["stacks"].rows()}

    def is_call_site(self, key: int) -> bool:
        """Whether a key that is booked under is a call site, and not that of a walked stack."""
        return self.walk_every > 1 and is_call_site(key)

    def call_site(self, key: int) -> int:
        """Return the call site of a stack; 0 where stacks are not sampled, or it has none."""
        if self.walk_every == 1:
            return 0
        if is_call_site(key):
            return key
        table = self._maps["stacks"]
        return int(table[table.Key(key)].call_site)

    def call_sites(self) -> dict[int, int] | None:
        """Return the call sites of walked stacks by their keys; None if stacks are not sampled."""
        if self.walk_every == 1:
            return None
        return {key: leaf.call_site for key, leaf in self._maps["stacks"].rows() if leaf.call_site}

    def outstanding(self) -> Iterator[LedgerEntry]:
        """Return the outstanding allocations, in no order."""
        return every_entry(self._maps["outstanding"], self._epochs.cycle_of)

    def oldest(self, keep: int, before_ns: int) -> Iterator[LedgerEntry]:
        """Return the ``keep`` oldest of each stack and family among the outstanding allocations
        that were made before ``before_ns``, in no order.
        """
        return oldest_entries(self._maps["outstanding"], self._epochs.cycle_of, keep, before_ns)

    def reused_by_cache(self) -> dict[str, int]:
        """Return by slab cache how often an address came up again whose free went unseen."""
        return {
            key.name.decode(errors="replace") or f"objects of {key.size} bytes": leaf
            for key, leaf in self._maps["reused_by_cache"].rows()
        }


def _module_load(leaf: Any) -> LoadRecord:
    return LoadRecord(
        leaf.name.decode(errors="replace"),
        leaf.cycle,
        TextRange(leaf.text.start, leaf.text.end),
        TextRange(leaf.init_text.start, leaf.init_text.end),
        leaf.loaded_ns,
        leaf.unloaded_ns or None,
    )
