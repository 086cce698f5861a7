"""The data of modules that are gone, where the kernel kept it.

With allocation profiling, Linux 6.12 does not free the data of a module that leaks: the allocation
tags are in it (free_mod_mem() in kernel/module/main.c). What the module's own variables lead to
then looks reachable to kmemleak, although the code that used those variables is gone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from operator import attrgetter

from kleak.capture.engine.records import LedgerEntry
from kleak.capture.machine.kcore import KernelMemory, kernel_memory, words
from kleak.capture.machine.kernel_state import loaded_modules, read_vmalloc_regions

_CALLERS = ("load_module+", "move_module+")
# Families of the ledger whose memory may be read: an area may be a device's registers, and pages
# are booked by their struct page where it is not known what they are mapped at.
_READABLE = frozenset({"kmalloc", "kmem_cache", "reclaimable_cache"})
MOST_FOLLOWED = 10_000
BYTES_OF_AN_OBJECT = 4096


class GoneModules:
    """Made when a session begins; asked when its modules are unloaded."""

    def __init__(self) -> None:
        """Note what is loaded now."""
        self._modules = _identities()
        self._before = frozenset(_module_regions())

    def reached(self, outstanding: Iterable[LedgerEntry]) -> frozenset[int]:
        """Return the addresses of what the data that was kept of modules which came and went leads
        to, by pointers to or into it and through other outstanding allocations.

        Empty where other modules came to stay, whose data cannot be told from it, and where the
        kernel's memory cannot be read. At most MOST_FOLLOWED objects are looked into.
        """
        if _identities() != self._modules:
            return frozenset()
        kept = {
            start: size for start, size in _module_regions().items() if start not in self._before
        }
        if not kept:
            return frozenset()
        try:
            with kernel_memory() as memory:
                return follow(memory, kept, outstanding)
        except OSError:
            return frozenset()


def follow(
    memory: KernelMemory, roots: Mapping[int, int], outstanding: Iterable[LedgerEntry]
) -> frozenset[int]:
    """Return the addresses of ``outstanding`` that the words in ``roots``, sizes in bytes by
    address, lead to.
    """
    entries = sorted(outstanding, key=attrgetter("address"))
    if not entries:
        return frozenset()
    starts = [entry.address for entry in entries]
    reached: set[int] = set()
    to_read = list(roots.items())
    for address, size_bytes in to_read:  # which grows meanwhile
        for word in words(memory.read(address, size_bytes)):
            entry = entries[bisect_right(starts, word) - 1]
            inside = 0 <= word - entry.address < entry.size_bytes
            if not inside or entry.address in reached:
                continue
            reached.add(entry.address)
            if entry.family in _READABLE and len(reached) <= MOST_FOLLOWED:
                to_read.append((entry.address, min(entry.size_bytes, BYTES_OF_AN_OBJECT)))
    return frozenset(reached)


def _identities() -> frozenset[tuple[str, int]]:
    return frozenset((name, module.address) for name, module in loaded_modules().items())


def _module_regions() -> dict[int, int]:
    """The regions that hold modules, by where they start, and their sizes."""
    return {
        region.address: region.size_bytes
        for region in read_vmalloc_regions().regions or ()
        if region.caller is not None and region.caller.startswith(_CALLERS)
    }
