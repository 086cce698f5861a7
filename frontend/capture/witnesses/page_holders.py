"""Who holds a page: the page cache, another allocator, or nobody, as /proc/kpageflags says; else
the task that page_owner names, where the kernel was booted with page_owner=on.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from kleak.capture.machine.probes import examine_page_owner
from kleak.model.doctor import State
from kleak.model.session import HELD_BY_ANOTHER, HELD_BY_ITS_TASK
from kleak.model.witnesses import USED, WitnessState, absent, not_asked, refused
from kleak.parsers import page_owner

KPAGEFLAGS = Path("/proc/kpageflags")
PAGE_OWNER = Path("/sys/kernel/debug/page_owner")

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
# read_page_owner() of mm/page_owner.c makes a record of at most a page. The file offset is the
# number of the page frame from which on it looks, so one page costs one read, and not the file.
_RECORD_BYTES = 4096
MOST_OWNERS = 10_000


class PageHolders:
    """Answers for pages by their address in the direct map. Use as a context."""

    def __init__(self, direct_map: int | None) -> None:
        """Prepare for a direct map that begins at ``direct_map``; None where it is not known."""
        self._direct_map = direct_map
        self._fd: int | None = None
        self._owners: int | None = None
        self._owners_left = MOST_OWNERS

    def __enter__(self) -> PageHolders:
        """Open what the kernel has (CONFIG_PROC_PAGE_MONITOR, CONFIG_PAGE_OWNER)."""
        if self._direct_map is not None:
            self._fd = os.open(KPAGEFLAGS, os.O_RDONLY) if KPAGEFLAGS.exists() else None
            with suppress(OSError):  # absent, off, or debugfs is locked down
                self._owners = os.open(PAGE_OWNER, os.O_RDONLY)
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        for fd in (self._fd, self._owners):
            if fd is not None:
                os.close(fd)
        self._fd = self._owners = None

    @property
    def owner_state(self) -> WitnessState:
        """What a report says of page_owner."""
        if self._owners is not None:
            return USED
        found = examine_page_owner()
        if found.state is not State.YES:
            return absent(found.found)
        if self._direct_map is None:
            return not_asked("no page was seen that it could be asked for")
        return refused("it could not be opened")

    def holder(self, address: int, tgid: int) -> str | None:
        """Return who holds the page at ``address``, which ``tgid`` allocated; None if unknown."""
        if self._direct_map is None:
            return None
        page = (address - self._direct_map) // os.sysconf("SC_PAGESIZE")
        return self._by_flags(page) or self._by_owner(page, tgid)

    def _by_flags(self, page: int) -> str | None:
        if self._fd is None:
            return None
        entry = os.pread(self._fd, _ENTRY_BYTES, page * _ENTRY_BYTES)
        if len(entry) != _ENTRY_BYTES:
            return None
        flags = int.from_bytes(entry, "little")
        return next((name for bit, name in _HOLDERS if flags >> bit & 1), None)

    def _by_owner(self, page: int, tgid: int) -> str | None:
        if self._owners is None or self._owners_left == 0 or page <= 0:
            return None
        self._owners_left -= 1
        try:
            record = os.pread(self._owners, _RECORD_BYTES, page)
        except OSError:
            return None
        # A page without an owner is passed over: then it is the record of a later one.
        for owned in page_owner.stream(record, errors="collect"):
            if owned.pfn == page and owned.tgid is not None:
                return HELD_BY_ITS_TASK if owned.tgid == tgid else HELD_BY_ANOTHER
        return None
