"""Which page frames may hold the kernel's own pointers, by /proc/kpageflags."""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from kleak.capture.pointers.layout import Frames

KPAGEFLAGS = Path("/proc/kpageflags")

# include/uapi/linux/kernel-page-flags.h.
_LRU, _MMAP, _SLAB, _BUDDY, _ANON, _SWAPCACHE, _SWAPBACKED = 5, 11, 7, 10, 12, 13, 14
_HUGE, _UNEVICTABLE, _HWPOISON, _NOPAGE, _OFFLINE, _ZERO, _PGTABLE = 17, 18, 19, 20, 23, 24, 26
_RESERVED = 32


def _bits(*numbers: int) -> int:
    return sum(1 << number for number in numbers)


_NEVER = _bits(_BUDDY, _HWPOISON, _NOPAGE, _OFFLINE)
_OF_OTHERS = _bits(_LRU, _SWAPCACHE, _UNEVICTABLE, _HUGE, _ZERO, _PGTABLE)
_ANONYMOUS = _bits(_ANON, _SWAPBACKED)

NOTHING, SLAB, OTHER = 0, 1, 2
"""What a frame is to the search: nothing that is looked at, a slab's, or the kernel's else."""

_FLAGS_AT_ONCE = 1 << 17
_LOOKED_AT = re.compile(rb"[\x01\x02]+")


def kind_of(flags: int) -> int:
    """Return what a frame with these flags is to the search."""
    if flags & _NEVER:
        return NOTHING
    # Before all else: the words from which some of the other flags are read are a slab's own. On a
    # CPU's list of partial slabs their number stands where the lowest bit would say "anonymous".
    if flags & 1 << _SLAB:
        return SLAB
    if flags & _OF_OTHERS or flags & _ANONYMOUS == _ANONYMOUS:
        return NOTHING
    return OTHER


class _Kinds(dict[int, int]):
    def __missing__(self, flags: int) -> int:
        kind = self[flags] = kind_of(flags)
        return kind


class PageFlags:
    """The flags of all memory, and what they were when last read. Use as a context."""

    def __init__(self, memory: Sequence[Frames]) -> None:
        """Prepare for the frames of ``memory``."""
        self._memory = tuple(memory)
        self._kinds = _Kinds()
        self._seen: dict[int, bytes] = {}

    def __enter__(self) -> PageFlags:
        """Open the file. Raises OSError where the kernel has none (CONFIG_PROC_PAGE_MONITOR)."""
        self._fd = os.open(KPAGEFLAGS, os.O_RDONLY)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        os.close(self._fd)

    def read_all(self) -> Iterator[Frames]:
        """Read the flags; yield the frames to look at, in runs."""
        for first, kinds in self._read():
            self._seen[first] = kinds
            for run in _LOOKED_AT.finditer(kinds):
                yield Frames(first + run.start(), first + run.end())

    def read_again(self) -> Iterator[Frames]:
        """Read the flags; yield the frames that were nothing before, and are the kernel's now."""
        for first, kinds in self._read():
            before = self._seen.get(first, bytes(len(kinds)))
            if kinds == before:
                continue
            was, now = int.from_bytes(before, "little"), int.from_bytes(kinds, "little")
            changed = (was ^ now).to_bytes(len(kinds), "little")
            self._seen[first] = kinds
            for run in _CHANGED.finditer(changed):
                for place in range(run.start(), run.end()):
                    if before[place] == NOTHING and kinds[place] != NOTHING:
                        yield Frames(first + place, first + place + 1)

    def kind(self, frame: int) -> int:
        """Return what a frame is now."""
        return self._kinds[self.flags(frame)]

    def flags(self, frame: int) -> int:
        """Return the flags of a frame now; those of none where there is no such frame."""
        entry = os.pread(self._fd, 8, frame * 8)
        return int.from_bytes(entry, "little") if len(entry) == 8 else 1 << _NOPAGE

    def is_reserved(self, frame: int) -> bool:
        """Return whether a frame was never the page allocator's: of the kernel since it booted."""
        return bool(self.flags(frame) & 1 << _RESERVED)

    def owner(self, frame: int) -> str | None:
        """Return who has a frame now that no search of pointers would find; None for the rest."""
        flags = self.flags(frame)
        if flags & 1 << _SLAB:
            return None
        if flags & 1 << _BUDDY:
            return "free memory"
        if flags & 1 << _PGTABLE:
            return "page tables"
        if flags & _bits(_MMAP, _SWAPBACKED) or flags & _ANONYMOUS == _ANONYMOUS:
            return "user memory"
        if flags & _OF_OTHERS:
            return "page cache"
        return None

    def _read(self) -> Iterator[tuple[int, bytes]]:
        for part in self._memory:
            for first in range(part.first, part.end, _FLAGS_AT_ONCE):
                count = min(_FLAGS_AT_ONCE, part.end - first)
                entries = os.pread(self._fd, 8 * count, first * 8)
                flags = array("Q", entries[: len(entries) // 8 * 8])
                yield first, bytes(map(self._kinds.__getitem__, flags))


_CHANGED = re.compile(rb"[^\0]+")
