"""What counts, written into the maps that the programs ask (bpf/scope.h)."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

from kleak.capture.engine.bpf_maps import Map
from kleak.capture.engine.ledger import filter_slot, key_address
from kleak.capture.engine.records import SymbolScope
from kleak.symbols.kernel_table import TextRange

_FORGOTTEN = (
    "outstanding",
    "totals",
    "stacks",
    "module_targets",
    "claimed_loads",
    "reused_by_cache",
)


def write_page_owners(maps: Mapping[str, Map], page_owners: Sequence[TextRange]) -> None:
    """Say which code takes pages to make other memory of them."""
    table = maps["page_owners"]
    owners = table.Leaf()
    for place, text in enumerate(page_owners):
        owners.ranges[place].start, owners.ranges[place].end = text.start, text.end
    table[ctypes.c_int(0)] = owners


def write_scope(
    maps: Mapping[str, Map],
    modules: Sequence[str],
    symbols: SymbolScope | None,
    loaded: Sequence[TextRange],
    *,
    by_process: bool,
) -> None:
    """Say what counts: see Tracer."""
    if modules:
        targets = maps["module_targets"]
        for number, name in enumerate(modules):
            targets[targets.Key(name.encode())] = targets.Leaf(number)
    scopes = maps["scopes"]
    scope = scopes.Leaf()
    # In a scope of modules there is no need, and their interrupts may hit this process.
    scope.ignore_tracer = symbols is not None
    scope.by_process = by_process
    if symbols is not None:
        envelope = symbols.envelope
        scope.low, scope.high = envelope.start, envelope.end
        scope.everything = symbols.everything
        if not symbols.everything:
            scope.symbols.start, scope.symbols.end = envelope.start, envelope.end
            _write_symbol_bits(maps["symbol_bits"], symbols, envelope.start)
    for number, text in enumerate(loaded, len(modules)):
        slots = maps["module_slots"]
        slot = slots.Leaf()
        slot.text.start, slot.text.end = text.start, text.end
        slots[ctypes.c_int(number)] = slot
        scope.low = min(scope.low or text.start, text.start)
        scope.high = max(scope.high, text.end)
    scopes[ctypes.c_int(0)] = scope


def forget_all(maps: Mapping[str, Map], modules: int, filter_slots: int) -> None:
    """Let nothing count any more, and forget all that was seen of so many ``modules``."""
    scopes = maps["scopes"]
    scopes[ctypes.c_int(0)] = scopes.Leaf()
    addresses = [key_address(key) for key, _ in maps["outstanding"].rows()]
    slots = maps["module_slots"]
    for number in range(modules):
        slots[ctypes.c_int(number)] = slots.Leaf()
        maps["load_of_slot"][ctypes.c_int(number)] = ctypes.c_uint32(0)
    for name in _FORGOTTEN:
        table = maps[name]
        for key in [key for key, _ in table.rows()]:
            table.pop(key if isinstance(key, ctypes.Structure) else table.Key(key))
    ledger_filter = maps["ledger_filter"]
    for address in addresses:
        slot = filter_slot(address, filter_slots)
        ledger_filter[ctypes.c_int(slot)] = ledger_filter.Leaf(0)


def _write_symbol_bits(bits: Map, symbols: SymbolScope, base: int) -> None:
    words: dict[int, int] = {}
    for text in symbols.ranges:
        first, last = text.start - base, text.end - base - 1
        for word in range(first // 64, last // 64 + 1):
            low, high = max(first - word * 64, 0), min(last - word * 64, 63)
            words[word] = words.get(word, 0) | ((1 << (high + 1)) - (1 << low))
    for word, value in words.items():
        bits[ctypes.c_int(word)] = ctypes.c_uint64(value)
