"""crash(8): ``kmem -i``, memory by class in pages, and ``kmem -v``, the regions of vmalloc.

                 PAGES        TOTAL      PERCENTAGE
    TOTAL MEM  2000000       7.6 GB         ----
         SLAB  1725000       6.6 GB   86% of TOTAL MEM

   VMAP_AREA         VM_STRUCT                 ADDRESS RANGE                SIZE
ffff8803798dce40  ffff880379f14e40  ffffc90000000000 - ffffc90000005000    20480
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kleak.parsers._lines import Damage, OnError, Source, iterate_lines
from kleak.parsers.errors import ParseError

_UNITS = {"": 1, "B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
HEAD = re.compile(r"PAGES\s+TOTAL\s+PERCENTAGE|VMAP_AREA\s+VM_STRUCT\s+ADDRESS RANGE\s+SIZE")
ROW = re.compile(
    r"(?P<name>TOTAL MEM|FREE|USED|SHARED|BUFFERS|CACHED|SLAB|TOTAL HUGE|HUGE FREE|TOTAL SWAP"
    r"|SWAP USED|SWAP FREE|COMMIT LIMIT|COMMITTED|TOTAL HIGH|FREE HIGH|TOTAL LOW|FREE LOW)"
    r"\s+(?P<pages>\d+)\s+(?P<size>[\d.]+|0)\s*(?P<unit>[KMGT]?B)?(?:\s+(?:-+|\d+%.*))?"
)
REGION = re.compile(
    r"(?:[0-9a-f]{8,16}\s+){1,2}(?P<start>[0-9a-f]{8,16}) - (?P<end>[0-9a-f]{8,16})\s+(?P<size>\d+)"
)


@dataclass(frozen=True, slots=True)
class CrashMemory:
    """``kmem -i``: pages by class, under crash's names. ``page_bytes``: None where not to tell."""

    pages: dict[str, int]
    page_bytes: int | None
    problems: tuple[ParseError, ...] = ()


@dataclass(frozen=True, slots=True)
class CrashRegions:
    """``kmem -v``: (start, size in bytes) of each region."""

    regions: tuple[tuple[int, int], ...]
    problems: tuple[ParseError, ...] = ()


def parse_memory(source: Source, *, errors: OnError = "raise") -> CrashMemory:
    """Parse ``kmem -i``. Raises ParseError at another line; "collect" skips it."""
    damage = Damage(errors)
    pages: dict[str, int] = {}
    sizes: list[float] = []
    for number, line in enumerate(iterate_lines(source), 1):
        text = line.strip()
        if not text or HEAD.fullmatch(text):
            continue
        match = ROW.fullmatch(text)
        if match is None:
            damage.report("not a row of kmem -i", number, line)
            continue
        count = int(match["pages"])
        pages.setdefault(match["name"], count)
        if count >= 1000 and float(match["size"]):
            sizes.append(float(match["size"]) * _UNITS[match["unit"] or ""] / count)
    page = min((1 << shift for shift in range(12, 17)), key=lambda one: abs(one - max(sizes)))\
        if sizes else None  # fmt: skip
    return CrashMemory(pages, page, tuple(damage.problems))


def parse_regions(source: Source, *, errors: OnError = "raise") -> CrashRegions:
    """Parse ``kmem -v``. Raises ParseError at another line; "collect" skips it."""
    damage = Damage(errors)
    regions = []
    for number, line in enumerate(iterate_lines(source), 1):
        text = line.strip()
        if not text or HEAD.fullmatch(text):
            continue
        match = REGION.fullmatch(text)
        if match is None:
            damage.report("not a row of kmem -v", number, line)
        else:
            regions.append((int(match["start"], 16), int(match["size"])))
    return CrashRegions(tuple(regions), tuple(damage.problems))
