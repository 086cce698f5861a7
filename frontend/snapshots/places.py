"""Names for places in text that the kernel could no longer name, from the other snapshots."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from kleak.model.session import PAGE_BYTES, Frame, Source
from kleak.parsers.code_location import CodeLocation
from kleak.parsers.kallsyms import Symbol
from kleak.snapshots.snapshot import Snapshot


class Places:
    """Turns what a report printed into frames, and knows which modules are still loaded.

    A module's text prints as a bare address once the module is gone. A snapshot that was taken
    while it was loaded has its symbols; they name the address unless two snapshots disagree.
    """

    # Whether the modules of the last snapshot are those of the first.
    nothing_new_loaded: bool

    def __init__(self, snapshots: Sequence[Snapshot]) -> None:
        """Take the symbols of all snapshots, and the modules of the last that lists them."""
        self._tables = [
            ([symbol.address for symbol in snapshot.module_symbols], snapshot.module_symbols)
            for snapshot in snapshots
            if snapshot.module_symbols
        ]
        listed = [snapshot.modules for snapshot in snapshots if snapshot.modules is not None]
        self._loaded = None if not listed else {module.name for module in listed[-1]}
        first = None if len(listed) < 2 else {module.name for module in listed[0]}
        self.nothing_new_loaded = first is not None and self._loaded == first
        self._known: dict[CodeLocation, Frame] = {}

    def frame(self, location: CodeLocation) -> Frame:
        """The frame for one place."""
        frame = self._known.get(location)
        if frame is None:
            frame = self._known[location] = self._resolve(location)
        return frame

    def frames(self, locations: Sequence[CodeLocation]) -> tuple[Frame, ...]:
        """The frames for a stack."""
        return tuple(self.frame(location) for location in locations)

    def is_loaded(self, module: str) -> bool | None:
        """Whether a module is in the last list of modules; None where there is no list."""
        return None if self._loaded is None else module in self._loaded

    def _resolve(self, location: CodeLocation) -> Frame:
        if location.symbol is not None:
            source = None if location.file is None else Source(location.file, location.line or 0)
            return Frame(location.module, location.symbol, location.offset or 0, source)
        address = location.address or 0
        named = {name for table in self._tables if (name := _look_up(table, address)) is not None}
        return named.pop() if len(named) == 1 else Frame(None, None, address)


def _look_up(table: tuple[list[int], tuple[Symbol, ...]], address: int) -> Frame | None:
    addresses, symbols = table
    position = bisect_right(addresses, address) - 1
    if position < 0:
        return None
    symbol = symbols[position]
    following = symbols[position + 1] if position + 1 < len(symbols) else None
    # Only what lies between two symbols of one module, or on the page of its last, is its.
    same = following is not None and following.module == symbol.module
    if not same and address // PAGE_BYTES != symbol.address // PAGE_BYTES:
        return None
    return Frame(symbol.module, symbol.name, address - symbol.address)
