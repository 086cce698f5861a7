"""Names of the kernel's variables, and whose data an address of a module is."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from kleak.capture.pointers.layout import MemoryLayout
from kleak.model.session import VmallocRegion
from kleak.parsers.proc_modules import LoadedModule

_KALLSYMS = Path("/proc/kallsyms")
_MODULES = Path("/sys/module")
_NOWHERE = 1 << 64
_DATA = re.compile(rb"^([0-9a-f]{16}) [dDbBrRvVuA] (\S+)(?:\t\[(\S+)\])?$", re.MULTILINE)
_START = re.compile(rb"^([0-9a-f]{16}) [tT] _text$", re.MULTILINE)


class DataSymbols:
    """Reads /proc/kallsyms when it is asked for the first time."""

    def __init__(self, modules: Iterable[LoadedModule]) -> None:
        """``modules`` are those that are loaded."""
        self._modules = tuple(modules)

    @cached_property
    def modules_from(self) -> int:
        """The address of the kernel's text: areas above it are of modules, or generated code."""
        start = _START.search(self._text)
        return int(start[1], 16) or _NOWHERE if start is not None else _NOWHERE

    def module_of(self, region: VmallocRegion) -> str | None:
        """Return the loaded module that has a section in an area."""
        place = bisect_left(self._sections, (region.address, ""))
        if place == len(self._sections):
            return None
        address, name = self._sections[place]
        return name if address < region.address + region.size_bytes else None

    def in_module(self, address: int, module: str) -> str:
        """Return how a report names the data of a module at an address."""
        name = self._nearest(address, module)
        return f"data of {module}" if name is None else f"{name} [{module}]"

    def in_image(self, address: int, layout: MemoryLayout) -> str:
        """Return how a report names what the direct map has of the kernel's own data."""
        start = _START.search(self._text)
        if start is None:
            return "kernel data"
        moved = int(start[1], 16) + address - layout.address_of(layout.image.first)
        name = self._nearest(moved, None)
        return "kernel data" if name is None else name

    @cached_property
    def _text(self) -> bytes:
        return _KALLSYMS.read_bytes()

    @cached_property
    def _symbols(self) -> dict[str | None, tuple[list[int], list[str]]]:
        rows: dict[str | None, list[tuple[int, str]]] = {}
        for address, name, module in _DATA.findall(self._text):
            rows.setdefault(module.decode() or None, []).append((int(address, 16), name.decode()))
        found = {}
        for owner, symbols in rows.items():
            symbols.sort()
            found[owner] = ([at for at, _ in symbols], [name for _, name in symbols])
        return found

    @cached_property
    def _sections(self) -> list[tuple[int, str]]:
        """Where the sections of the loaded modules are. Since v6.4 a module has several areas, of
        which /proc/modules shows that of its text only.
        """
        found = [(module.address, module.name) for module in self._modules if module.address]
        for module in self._modules:
            for file in (_MODULES / module.name / "sections").glob("*"):
                with suppress(OSError, ValueError):  # it has just been unloaded
                    found.append((int(file.read_text(), 16), module.name))
        return sorted(found)

    def _nearest(self, address: int, module: str | None) -> str | None:
        starts, names = self._symbols.get(module, ([], []))
        place = bisect_right(starts, address) - 1
        if place < 0 or address - starts[place] > _FAR_BYTES:
            return None
        beyond = address - starts[place]
        return f"{names[place]}+{beyond:#x}" if beyond else names[place]


_FAR_BYTES = 1 << 20
"""Further behind a symbol, an address has nothing to do with it."""
