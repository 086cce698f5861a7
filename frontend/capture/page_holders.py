"""Who holds a page, as /proc/kpageflags says: the page cache, another allocator, or nobody."""

from __future__ import annotations

import os
from pathlib import Path

KPAGEFLAGS = Path("/proc/kpageflags")

# include/uapi/linux/kernel-page-flags.h, in the order in which they are asked for.
_HOLDERS = (
    (10, "free"),  # KPF_BUDDY
    (7, "slab"),  # KPF_SLAB
    (26, "page tables"),  # KPF_PGTABLE
    (12, "user memory"),  # KPF_ANON
    (5, "page cache"),  # KPF_LRU
    (11, "user memory"),  # KPF_MMAP
)
_ENTRY_BYTES = 8


class PageHolders:
    """Answers for pages by their address in the direct map. Use as a context."""

    def __init__(self, direct_map: int | None) -> None:
        """Prepare for a direct map that begins at ``direct_map``; None where it is not known."""
        self._direct_map = direct_map
        self._fd: int | None = None

    def __enter__(self) -> PageHolders:
        """Open the file, if the kernel has it (CONFIG_PROC_PAGE_MONITOR)."""
        if self._direct_map is not None and KPAGEFLAGS.exists():
            self._fd = os.open(KPAGEFLAGS, os.O_RDONLY)
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def holder(self, address: int) -> str | None:
        """Return who holds the page at ``address``; None where nobody is known to."""
        if self._fd is None or self._direct_map is None:
            return None
        page = (address - self._direct_map) // os.sysconf("SC_PAGESIZE")
        entry = os.pread(self._fd, _ENTRY_BYTES, page * _ENTRY_BYTES)
        if len(entry) != _ENTRY_BYTES:
            return None
        flags = int.from_bytes(entry, "little")
        return next((name for bit, name in _HOLDERS if flags >> bit & 1), None)
