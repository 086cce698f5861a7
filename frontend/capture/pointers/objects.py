"""The objects that are searched for, and what counts as a pointer to one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from kleak.capture.pointers.layout import MemoryLayout

IN_SLABS = frozenset({"kmalloc", "kmem_cache", "reclaimable_cache"})
PAGES = "pages"
AREAS = "vmap_area"
"""Families of the ledger whose objects are searched for. What others give is held by devices, by
per-CPU offsets, by page tables: by no address that is in memory.
"""

MOST_PAGES = 1 << 18
"""Pages of all objects together: an eighth of the filter of bpf/scan.c."""

_KERNEL = 1 << 63
_TAGS = 3  # low bits of a pointer to struct page: those of a scatterlist and a bio_vec
_PHYSICAL = 0x000FFFFFFFFFFFFF
_FILTER_PAGE_BITS = 12


@dataclass(frozen=True, slots=True)
class WantedObject:
    """An outstanding object. ``key``: its address in the ledger. ``address``: in the direct map, or
    that of an area.
    """

    key: int
    family: str
    address: int
    size_bytes: int
    time_ns: int

    @property
    def is_area(self) -> bool:
        """Whether its address is none of the direct map."""
        return self.family == AREAS


class _Ranges:
    """Addresses, and the numbers of the objects that have them."""

    def __init__(self, ranges: Iterable[tuple[int, int, int]]) -> None:
        """``ranges``: first address, address behind, number of the object."""
        self._ranges = sorted(ranges)
        self._starts = [start for start, _, _ in self._ranges]

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        return iter(self._ranges)

    def at(self, address: int) -> int | None:
        place = bisect_right(self._starts, address) - 1
        if place < 0 or address >= self._ranges[place][1]:
            return None
        return self._ranges[place][2]


class Objects:
    """Objects by all that leads to them."""

    def __init__(
        self,
        layout: MemoryLayout,
        objects: Sequence[WantedObject],
        aliases: Mapping[int, int],
        slab_heads: Mapping[int, int],
    ) -> None:
        """``aliases``: addresses at which frames of pages are mapped besides. ``slab_heads``: the
        first frame of the slab or block that a frame belongs to, where it is another.
        """
        self._layout = layout
        self._objects = objects
        self._frames: dict[int, int] = {}
        self._starts: dict[int, int] = {}
        self._beside: dict[int, list[int]] = {}
        for number, one in enumerate(objects):
            first = layout.frame_at(one.address)
            if first is None or one.is_area:
                continue
            if one.family == PAGES:
                for frame in range(first, first + one.size_bytes // layout.page_bytes):
                    self._frames[frame] = number
            else:
                self._starts[one.address - layout.direct] = number
                for frame in {first, slab_heads.get(first, first)}:
                    self._beside.setdefault(frame, []).append(number)
        self._ranges = _Ranges(
            (one.address, one.address + one.size_bytes, number)
            for number, one in enumerate(objects)
        )
        self._aliases = _Ranges(
            (at, at + layout.page_bytes, self._frames[frame])
            for frame, at in aliases.items()
            if frame in self._frames
        )

    def __getitem__(self, number: int) -> WantedObject:
        """Return an object by its number."""
        return self._objects[number]

    def filter_numbers(self) -> Iterator[int]:
        """Yield the numbers of pages, and of struct pages, that lead to an object."""
        for start, end, _ in chain(self._ranges, self._aliases):
            yield from range(start >> _FILTER_PAGE_BITS, (end - 1 >> _FILTER_PAGE_BITS) + 1)
        size = self._layout.struct_page_bytes
        for frame in chain(self._frames, self._beside):
            at = self._layout.struct_page(frame)
            yield from range(at >> 6, (at + size - 1 >> 6) + 1)

    def pointed_to(self, word: int, after: int) -> Iterator[int]:
        """Yield the numbers of the objects that a word leads to; ``after`` is the word behind it.

        An address anywhere in the object does; its exact physical address; a pointer to its struct
        page, for what is smaller than a page with the offset behind it.
        """
        if word < _KERNEL:
            number = self._starts.get(word)
            if number is None:
                number = self._frames.get((word & _PHYSICAL) // self._layout.page_bytes)
            if number is not None:
                yield number
            return
        described = self._layout.described_by(word)
        if described is None:
            number = self._ranges.at(word)
            if number is None:
                number = self._aliases.at(word)
            if number is not None:
                yield number
            return
        frame, inside = described
        if frame in self._frames:
            yield self._frames[frame]
        elif inside <= _TAGS and frame in self._beside:
            start = self._layout.address_of(frame)
            offsets = (after & 0xFFFFFFFF, after >> 32)
            for number in self._beside[frame]:
                if self._objects[number].address - start in offsets:
                    yield number

    def is_struct_page(self, word: int) -> bool:
        """Whether pointed_to() needs the word behind this one."""
        return word >= _KERNEL and self._layout.described_by(word) is not None

    def holding(self, address: int) -> int | None:
        """Return the number of the object that an address of the direct map or an area lies in."""
        return self._ranges.at(address)

    def of_frame(self, frame: int) -> int | None:
        """Return the number of the block of pages that has a frame."""
        return self._frames.get(frame)

    def page_frames(self) -> frozenset[int]:
        """Return the frames of all objects that are pages."""
        return frozenset(self._frames)
