"""Areas of vmalloc memory: which one an address lies in, and which frames they map."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable

from kleak.capture.pointers.page_tables import PageTables
from kleak.model.session import VmallocRegion


class Areas:
    """The areas of one reading of /proc/vmallocinfo."""

    def __init__(self, regions: Iterable[VmallocRegion]) -> None:
        """``regions`` have real addresses, and sizes with the page behind that is not mapped."""
        self._regions = sorted(regions, key=lambda region: region.address)
        self._starts = [region.address for region in self._regions]

    def at(self, address: int) -> VmallocRegion | None:
        """Return the area that an address lies in."""
        place = bisect_right(self._starts, address) - 1
        if place < 0:
            return None
        region = self._regions[place]
        return region if address < region.address + region.size_bytes else None

    def like(self, stacks: Collection[int]) -> frozenset[tuple[int, str | None]]:
        """Return what tells the areas that begin at these addresses: size and caller."""
        return frozenset(
            (region.size_bytes, region.caller)
            for address in stacks
            if (region := self.at(address)) is not None and region.address == address
        )

    def find_frames(self, tables: PageTables, wanted: Collection[int]) -> dict[int, int]:
        """Return at which address of an area each of these page frames is mapped, if it is."""
        found: dict[int, int] = {}
        left = set(wanted)
        for region in self._regions:
            # Of registers of devices, no frame is memory.
            if region.kind == "ioremap":
                continue
            end = region.address + region.size_bytes
            for at, first, pages in tables.mapped(region.address, end):
                if pages == 1:
                    if first in left:
                        found.setdefault(first, at)
                    continue
                page_bytes = 1 << 12
                for frame in left.intersection(range(first, first + pages)):
                    found.setdefault(frame, at + (frame - first) * page_bytes)
        return found
