"""Page tables of the kernel: which page frame is mapped at an address (x86-64)."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from kleak.capture.engine.hooks import offset
from kleak.capture.pointers.layout import MemoryLayout
from kleak.capture.pointers.programs import ScanPrograms
from kleak.errors import UnsupportedError
from kleak.parsers.btf import Btf

_PRESENT, _LARGE = 1, 1 << 7
_FRAME_BITS = 0x000FFFFFFFFFF000
_ENTRIES_BITS = 9
_PAGE_BITS = 12
# The direct map lies below this only with five levels (Documentation/arch/x86/x86_64/mm.rst).
_FOUR_LEVELS_FROM = 0xFFFF800000000000


class PageTables:
    """Looks up addresses; each table is read once."""

    def __init__(self, programs: ScanPrograms, btf: Btf, layout: MemoryLayout) -> None:
        """Begin at the tables of this process, whose upper half is the kernel's.

        Raises UnsupportedError where there are none.
        """
        self._programs, self._layout = programs, layout
        self._levels = 4 if layout.direct >= _FOUR_LEVELS_FROM else 5
        memory = programs.word(programs.current_task() + offset(btf, "task_struct", "mm"))
        self._top = programs.word(memory + offset(btf, "mm_struct", "pgd"))
        self._tables: dict[int, array[int] | None] = {}
        if not memory or layout.frame_at(self._top) is None:
            raise UnsupportedError("the kernel's page tables were not found")

    def mapped(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield what is mapped from ``start`` to ``end``: address, page frame, number of frames."""
        at = start
        while at < end:
            table, pages = self._top, 1
            for level in range(self._levels, 0, -1):
                shift = _PAGE_BITS + _ENTRIES_BITS * (level - 1)
                pages = 1 << (shift - _PAGE_BITS)
                entry = self._entry(table, at >> shift & (1 << _ENTRIES_BITS) - 1)
                if not entry & _PRESENT or level == 1 or (entry & _LARGE and level <= 3):
                    break
                table = self._layout.direct + (entry & _FRAME_BITS)
            size = pages << _PAGE_BITS
            if entry & _PRESENT:
                first = (entry & _FRAME_BITS & ~(size - 1)) >> _PAGE_BITS
                yield at // size * size, first, pages
            at = at // size * size + size

    def _entry(self, table: int, place: int) -> int:
        if table not in self._tables:
            self._tables[table] = self._programs.words(table, 1 << _ENTRIES_BITS)
        entries = self._tables[table]
        return 0 if entries is None else entries[place]
