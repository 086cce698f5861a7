"""A module whose file nobody can find, by what /proc/kallsyms listed of it while it was loaded."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from kleak.parsers.kallsyms import Symbol
from kleak.symbols.module_image import Location, Region

_TEXT_KINDS = frozenset("tTwW")


class ListedModule:
    """Names of its functions. No lines of source, and none of its init, which is gone by then."""

    def __init__(self, name: str, base: int, symbols: Iterable[Symbol]) -> None:
        """``base`` is where its text begins; ``symbols`` are its own."""
        self.name = name
        found = {one.address - base: one.name for one in symbols if one.kind in _TEXT_KINDS}
        self._starts = sorted(start for start in found if start >= 0)
        self._names = [found[start] for start in self._starts]

    def text_size(self, region: Region) -> int:
        """Return bytes from the region's base to the last known function."""
        return self._starts[-1] if self._starts and region == "core" else 0

    def resolve(self, region: Region, offset: int) -> Location:
        """Return the function that the instruction before ``offset`` is in."""
        place = bisect_right(self._starts, offset - 1) - 1
        if region == "init" or place < 0:
            return Location(None, offset, None)
        return Location(self._names[place], offset - self._starts[place], None)
