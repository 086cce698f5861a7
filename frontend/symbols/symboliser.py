"""Addresses of a traced run to frames: the target modules from their files, at every place they
were loaded, all else from a snapshot of the kernel's own table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from kleak.model.session import Frame
from kleak.symbols.kernel_table import KernelTable

if TYPE_CHECKING:  # its parser of ELF takes a while to import, and many sessions have no module
    from kleak.symbols.module_image import Location, Region


class Code(Protocol):
    """What is known of a module's code; :class:`kleak.symbols.module_image.ModuleImage` is one."""

    @property
    def name(self) -> str:
        """The module's name."""

    def text_size(self, region: Region) -> int:
        """Return how much of a region is known to be code, in bytes."""

    def resolve(self, region: Region, offset: int) -> Location:
        """Return what a return address is, by its offset from the region's base."""


@dataclass(frozen=True, slots=True)
class ModuleLoad:
    """One load of a module: where its text was, and in which epoch (cycle) it came.

    Bases are addresses, sizes bytes; both of a region are 0 if the module has none of it.
    ``last_epoch`` is the one in which it went, if that is a later one.
    """

    image: Code
    text_base: int
    text_size: int
    init_base: int
    init_size: int
    epoch: int
    last_epoch: int = 0

    @property
    def epochs(self) -> range:
        """The epochs in which it was there."""
        return range(self.epoch, max(self.epoch, self.last_epoch) + 1)

    def place(self, address: int) -> tuple[Region, int] | None:
        """Region and offset of a return address in this load, or None if it lies elsewhere."""
        bounds: tuple[tuple[Region, int, int], ...] = (
            ("core", self.text_base, self.text_size),
            ("init", self.init_base, self.init_size),
        )
        for region, base, size in bounds:
            if 0 < address - base <= size:
                return region, address - base
        return None

    @property
    def fits(self) -> bool:
        """Whether the regions are large enough for the file's code: else it is another build."""
        return (
            self.image.text_size("core") <= self.text_size
            and self.image.text_size("init") <= self.init_size
        )


class Symboliser:
    """Resolves addresses, also those of modules that are gone."""

    def __init__(self, table: KernelTable, loads: Iterable[ModuleLoad] = ()) -> None:
        """``table`` serves all addresses that no load claims."""
        self._table = table
        self._loads: dict[int, list[ModuleLoad]] = {}
        self._known: dict[tuple[int, int], Frame] = {}
        for load in loads:
            self.add(load)

    def add(self, load: ModuleLoad) -> None:
        """Add a load. Frames of its epochs resolved before are forgotten."""
        for epoch in load.epochs:
            self._loads.setdefault(epoch, []).append(load)
        self._known = {key: kept for key, kept in self._known.items() if key[1] not in load.epochs}

    def resolve(self, address: int, epoch: int) -> Frame:
        """The frame of a return address as it was in an epoch.

        Inside a module's text, but in none of its functions, the frame has no symbol; its
        offset then counts from the start of the text (of __init text: from the end of the
        other, so that two places never look the same).
        """
        key = (address, self.era(epoch))
        frame = self._known.get(key)
        if frame is None:
            frame = self._known[key] = self._resolve(address, epoch)
        return frame

    def era(self, epoch: int) -> int:
        """An epoch in which every address has the frame that it has in this one: the same one of
        all that no load is known of.
        """
        return epoch if epoch in self._loads else 0

    def _resolve(self, address: int, epoch: int) -> Frame:
        # The last one first: it may lie where the init text of an earlier one was.
        for load in reversed(self._loads.get(epoch, ())):
            place = load.place(address)
            if place is None:
                continue
            region, offset = place
            found = load.image.resolve(region, offset)
            if found.symbol is None:
                beyond = load.image.text_size("core") if region == "init" else 0
                return Frame(load.image.name, None, beyond + offset, found.source)
            return Frame(load.image.name, found.symbol, found.offset, found.source)
        return self._table.resolve(address)
