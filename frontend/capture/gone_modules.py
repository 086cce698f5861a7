"""The data of modules that are gone, where the kernel kept it.

With allocation profiling, Linux 6.12 does not free the data of a module that leaks: the allocation
tags are in it (free_mod_mem() in kernel/module/main.c). What the module's own variables point to
then looks reachable to kmemleak, although no code can reach it any more.
"""

from __future__ import annotations

import os
import struct
from array import array
from pathlib import Path

from kleak.capture.kernel_state import read_vmalloc_regions
from kleak.capture.modules import loaded_modules

KCORE = Path("/proc/kcore")
_CALLERS = ("load_module+", "move_module+")
_PT_LOAD = 1


class GoneModules:
    """Made when a session begins; asked when its modules are unloaded."""

    def __init__(self) -> None:
        """Note what is loaded now."""
        self._modules = _identities()
        self._before = frozenset(_module_regions())

    def pointers(self) -> frozenset[int]:
        """Return all words in the data that was kept of modules which came and went.

        Empty where other modules came to stay, whose data cannot be told from it, and where the
        kernel's memory cannot be read.
        """
        if _identities() != self._modules:
            return frozenset()
        kept = {
            start: size for start, size in _module_regions().items() if start not in self._before
        }
        words: set[int] = set()
        try:
            for start, size in kept.items():
                words.update(read_words(start, size))
        except OSError:
            return frozenset()
        return frozenset(words)


def _identities() -> frozenset[tuple[str, int]]:
    return frozenset((name, module.address) for name, module in loaded_modules().items())


def _module_regions() -> dict[int, int]:
    """The regions that hold modules, by where they start, and their sizes."""
    return {
        region.address: region.size_bytes
        for region in read_vmalloc_regions().regions or ()
        if region.caller is not None and region.caller.startswith(_CALLERS)
    }


def read_words(start: int, size_bytes: int, kcore: Path = KCORE) -> array[int]:
    """Read kernel memory as words of 64 bits, from an ELF core file like /proc/kcore.

    Empty where the file has no such memory. Raises OSError where it may not be read.
    """
    fd = os.open(kcore, os.O_RDONLY)
    try:
        header = os.pread(fd, 64, 0)
        (table,) = struct.unpack_from("<Q", header, 32)
        entry_bytes, entries = struct.unpack_from("<HH", header, 54)
        for number in range(entries):
            entry = os.pread(fd, entry_bytes, table + number * entry_bytes)
            kind, _, offset, address, _, in_file = struct.unpack_from("<IIQQQQ", entry)
            if kind == _PT_LOAD and address <= start and start + size_bytes <= address + in_file:
                words = array("Q")
                data = os.pread(fd, size_bytes, offset + start - address)
                words.frombytes(data[: len(data) // 8 * 8])
                return words
    finally:
        os.close(fd)
    return array("Q")
