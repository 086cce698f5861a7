"""The data of modules that are gone, where the kernel kept it.

With allocation profiling, Linux 6.12 does not free the data of a module that leaks: the allocation
tags are in it (free_mod_mem() in kernel/module/main.c). What the module's own variables point to
then looks reachable to kmemleak, although no code can reach it any more.
"""

from __future__ import annotations

from array import array

from elftools.common.exceptions import ELFError

from kleak.capture.kernel_memory import kernel_memory
from kleak.capture.kernel_state import read_vmalloc_regions
from kleak.capture.modules import loaded_modules

_CALLERS = ("load_module+", "move_module+")


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
        words = array("Q")
        try:
            with kernel_memory() as memory:
                for start, size in kept.items():
                    data = memory.read(start, size)
                    words.frombytes(data[: len(data) // words.itemsize * words.itemsize])
        except (OSError, ELFError):
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
