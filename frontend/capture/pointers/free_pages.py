"""Whether a page frame that no flag tells of is in use, by its struct page."""

from __future__ import annotations

from kleak.capture.engine.hooks import offset
from kleak.capture.pointers.layout import MemoryLayout
from kleak.capture.pointers.programs import ScanPrograms
from kleak.parsers.btf import Btf

_MOST_ORDERS = 11
_TYPE_BITS = 24


class FreePages:
    """A CPU's lists of free pages have no flag (free_unref_page() of mm/page_alloc.c)."""

    def __init__(self, programs: ScanPrograms, btf: Btf, layout: MemoryLayout) -> None:
        """Raises UnsupportedError where this kernel's struct page has other members."""
        self._programs, self._layout = programs, layout
        self._compound_head = offset(btf, "page", "compound_head")
        self._count = offset(btf, "page", "_refcount")
        self._list = offset(btf, "page", "lru")
        self._type = btf.member_offset("page", "page_type")
        # Has no count: commit 8c57b687e833 ("mm, slab: frozen pages for large kmalloc"), v6.15.
        self._large_kmalloc = btf.enumerator("PGTY_large_kmalloc")

    def is_free(self, frame: int) -> bool | None:
        """Return whether a frame is on a list of free pages; None where that cannot be told.

        All but the first page of a block that is no compound page have no references either, be the
        block free or in use: its first page tells.
        """
        page = self._layout.struct_page(frame)
        head = self._programs.word(page + self._compound_head)
        if head & 1:
            return False if self._in_use(head - 1) else None
        for order in range(_MOST_ORDERS):
            first = self._layout.struct_page(frame >> order << order)
            if self._in_use(first):
                return False
            if self._is_listed(first):
                return True
        return None

    def _in_use(self, page: int) -> bool:
        if self._programs.half(page + self._count):
            return True
        if self._type is None or self._large_kmalloc is None:
            return False
        return self._programs.half(page + self._type) >> _TYPE_BITS == self._large_kmalloc

    def _is_listed(self, page: int) -> bool:
        """Whether its neighbours on a list know it. A page that nobody ever freed has itself."""
        link = page + self._list
        following, before = self._programs.word(link), self._programs.word(link + 8)
        if following in (0, link) or following & 7 or before & 7:
            return False
        return self._programs.word(following + 8) == link and self._programs.word(before) == link
