"""What counts, written into the maps that the programs ask (bpf/scope.h)."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

from kleak.capture.engine.bpf_maps import Map
from kleak.capture.engine.records import SymbolScope
from kleak.symbols.kernel_table import TextRange


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


def _write_symbol_bits(bits: Map, symbols: SymbolScope, base: int) -> None:
    words: dict[int, int] = {}
    for text in symbols.ranges:
        first, last = text.start - base, text.end - base - 1
        for word in range(first // 64, last // 64 + 1):
            low, high = max(first - word * 64, 0), min(last - word * 64, 63)
            words[word] = words.get(word, 0) | ((1 << (high + 1)) - (1 << low))
    for word, value in words.items():
        bits[ctypes.c_int(word)] = ctypes.c_uint64(value)
