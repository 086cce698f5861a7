"""What the places are in which pointers were found: who holds an object, or nobody any more."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache

from kleak.capture.engine.hooks import offset
from kleak.capture.pointers.areas import Areas
from kleak.capture.pointers.free_pages import FreePages
from kleak.capture.pointers.layout import MemoryLayout
from kleak.capture.pointers.objects import Objects
from kleak.capture.pointers.page_flags import SLAB, PageFlags
from kleak.capture.pointers.page_tables import PageTables
from kleak.capture.pointers.programs import BLOCK_BYTES, ScanPrograms
from kleak.capture.pointers.slabs import Slabs
from kleak.capture.pointers.symbols import DataSymbols
from kleak.capture.pointers.tasks import Task, describe
from kleak.parsers.btf import Btf


class Weight(Enum):
    """What a place that holds a pointer says of the object that it leads to."""

    HOLDS = "something has it"
    DOUBTFUL = "it cannot be told whether anything is there still"
    NOTHING = "what is there is left over"


@dataclass(frozen=True, slots=True)
class Place:
    """A place: what it says, and who it is; ``inside``: the number of the object it lies in."""

    weight: Weight
    what: str = ""
    inside: int | None = None


_LEFT_OVER = Place(Weight.NOTHING)


@dataclass(frozen=True, slots=True)
class Machine:
    """What one look at the machine found, after memory was searched.

    ``tasks``: by the start of their stacks, None where their list was not to be had.
    ``own_areas``: starts of areas of kleak's own maps. ``own_blocks``: addresses of blocks that
    the search copies to.
    """

    programs: ScanPrograms
    layout: MemoryLayout
    flags: PageFlags
    areas: Areas
    tables: PageTables
    slabs: Slabs
    free_pages: FreePages
    tasks: Mapping[int, Task] | None
    own_areas: Collection[int]
    own_blocks: Collection[int]
    symbols: DataSymbols


class Holders:
    """Says of a word that leads to an object what it lies in."""

    def __init__(self, machine: Machine, btf: Btf, objects: Objects) -> None:
        """Raises UnsupportedError where this kernel's struct page has other members."""
        self._machine, self._objects, self._btf = machine, objects, btf
        lru = offset(btf, "page", "lru")
        self._in_struct_page = {
            lru,
            lru + 8,
            *(offset(btf, "page", name) for name in ("mapping", "private")),
        }
        self._vmap_area = {
            at
            for name in ("va_start", "va_end")
            if (at := btf.member_offset("vmap_area", name)) is not None
        }
        layout = machine.layout
        self._memmap = sorted(
            (first, pages, at)
            for at, first, pages in machine.tables.mapped(
                layout.memmap, layout.struct_page(layout.frames)
            )
        )
        self._memmap_starts = [first for first, _, _ in self._memmap]
        stacks = machine.tasks or {}
        self._like_stacks = machine.areas.like(stacks)
        self._page = cache(self._page_of_frame)
        self._member = cache(self._find_member)

    def places(self, sources: Collection[int]) -> Iterator[tuple[int, int | None]]:
        """Yield each of these addresses of the direct map, and that of an area for it."""
        layout = self._machine.layout
        frames = {address: layout.frame_at(address) for address in sources}
        wanted = {frame for frame in frames.values() if frame is not None}
        mapped = self._machine.areas.find_frames(self._machine.tables, wanted)
        for address, frame in frames.items():
            at = None if frame is None else mapped.get(frame)
            yield address, None if at is None else at + address % layout.page_bytes

    def place(self, source: int, in_area: int | None, value: int, target: int) -> Place:
        """Return what the word ``value`` at ``source`` lies in, which leads to ``target``."""
        machine = self._machine
        frame = machine.layout.frame_at(source)
        if frame is None:
            return _LEFT_OVER
        if machine.flags.kind(frame) == SLAB:
            return self._in_slab(source, frame, value, target)
        block = self._objects.of_frame(frame)
        if block is not None:
            return Place(Weight.HOLDS, "", block)
        if in_area is not None:
            return self._in_area(source, in_area, value, target)
        described = self._described(source, frame)
        if described is not None:
            return self._in_memmap(*described)
        if self._is_own(source):
            return _LEFT_OVER
        image = machine.layout.image
        if image.first <= frame < image.end and machine.flags.is_reserved(frame):
            return Place(Weight.HOLDS, machine.symbols.in_image(source, machine.layout))
        inside = self._objects.holding(source)  # of kmalloc, with pages of its own
        place = self._page(frame)
        return place if inside is None else Place(place.weight, "", inside)

    def _is_own(self, address: int) -> bool:
        return any(block <= address < block + BLOCK_BYTES for block in self._machine.own_blocks)

    # --- slabs --------------------------------------------------------------------------------

    def _in_slab(self, source: int, frame: int, value: int, target: int) -> Place:
        found = self._machine.slabs.object_at(source, frame)
        if found is None or found.free or found.in_padding:
            return _LEFT_OVER
        if self._objects[target].is_area and self._is_bookkeeping(source, found.inside, value):
            return _LEFT_OVER
        inside = self._objects.holding(source)
        what = self._member(found.cache.name, found.cache.object_bytes, found.inside)
        weight = Weight.DOUBTFUL if found.free is None else Weight.HOLDS
        return Place(weight, what, inside)

    def _is_bookkeeping(self, source: int, inside: int, value: int) -> bool:
        """Whether a word is the area's own vm_struct or a vmap_area, of it or of its neighbour."""
        words = self._machine.programs.words(source - 8, 3)
        if words is None:
            return False
        before, _, after = words
        region = self._machine.areas.at(value)
        # vm_struct has the size behind the address, vmap_area the end.
        if region is not None and after in (region.size_bytes, value + region.size_bytes):
            return region.address == value
        # A neighbour may end where this one begins.
        page_bytes = self._machine.layout.page_bytes
        return (
            inside in self._vmap_area and before % page_bytes == 0 and 0 < value - before < 1 << 46
        )

    def _find_member(self, cache_name: str, size: int, inside: int) -> str:
        """Name a place in an object: by the member, where the cache has the name of its type."""
        for struct in (cache_name, cache_name.removesuffix("_cache")):
            if self._btf.struct_size(struct) == size:
                path = self._btf.path_at(struct, inside)
                if path:
                    return f"struct {struct}.{path}"
        return f"{cache_name}+{inside}"

    # --- areas --------------------------------------------------------------------------------

    def _in_area(self, source: int, in_area: int, value: int, target: int) -> Place:
        machine = self._machine
        region = machine.areas.at(in_area)
        if region is None or self._is_own(source) or self._is_own(in_area):
            return _LEFT_OVER
        if region.address in machine.own_areas:
            return _LEFT_OVER
        inside = self._objects.holding(in_area)
        if inside is not None:
            return Place(Weight.HOLDS, "", inside)
        interior = self._objects[target].is_area and value != self._objects[target].address
        if machine.tasks is not None:
            task = machine.tasks.get(region.address)
            if task is not None:
                return self._on_stack(task, in_area, interior)
            if (region.size_bytes, region.caller) in self._like_stacks:
                return _LEFT_OVER  # the stack of a task that ended, kept for another
        module = machine.symbols.module_of(region)
        if module is not None:
            return Place(Weight.HOLDS, machine.symbols.in_module(in_area, module))
        if in_area >= machine.symbols.modules_from:  # of a module that went, or has no names
            return Place(Weight.DOUBTFUL, "memory of a module that is not loaded")
        return Place(Weight.HOLDS, f"area of {region.caller or region.kind}")

    def _on_stack(self, task: Task, at: int, interior: bool) -> Place:
        if task.tgid == os.getpid() or (task.top is not None and at < task.top):
            return _LEFT_OVER
        # The stack is full of numbers that are none of an area any more.
        weight = Weight.DOUBTFUL if interior else Weight.HOLDS
        return Place(weight, describe(task))

    # --- struct pages -------------------------------------------------------------------------

    def _described(self, source: int, frame: int) -> tuple[int, int] | None:
        number = bisect_right(self._memmap_starts, frame) - 1
        if number < 0:
            return None
        first, pages, at = self._memmap[number]
        if frame >= first + pages:
            return None
        layout = self._machine.layout
        within = (frame - first) * layout.page_bytes + source % layout.page_bytes
        return layout.described_by(at + within)

    def _in_memmap(self, frame: int, inside: int) -> Place:
        of_object = self._objects.of_frame(frame)
        if of_object is not None:
            return Place(Weight.HOLDS, "", of_object)
        if self._machine.flags.kind(frame) == SLAB:
            if inside == self._machine.slabs.extensions_offset():
                return Place(Weight.HOLDS, "slab's array of owners")
            return _LEFT_OVER
        if inside not in self._in_struct_page:
            return _LEFT_OVER
        place = self._page(frame)
        if place.weight is Weight.NOTHING and place.what:  # somebody's: its struct page is in use
            return Place(Weight.HOLDS, f"struct page of {place.what}")
        return place if place.weight is not Weight.HOLDS else Place(Weight.HOLDS, "struct page")

    # --- other pages --------------------------------------------------------------------------

    def _page_of_frame(self, frame: int) -> Place:
        owner = self._machine.flags.owner(frame)
        if owner == "free memory":
            return _LEFT_OVER
        if owner is not None:
            return Place(Weight.NOTHING, owner)
        free = self._machine.free_pages.is_free(frame)
        if free:
            return _LEFT_OVER
        if free is None and not self._machine.flags.is_reserved(frame):
            return Place(Weight.DOUBTFUL, "page that may be free")
        return Place(Weight.HOLDS, "page of the kernel")
