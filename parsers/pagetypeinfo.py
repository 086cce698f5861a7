"""/proc/pagetypeinfo, printed by pagetypeinfo_show() in mm/vmstat.c.

    Free pages count per migrate type at order       0      1      2 ...
    Node    0, zone   Normal, type    Unmovable    800    120      0 ...
    Number of blocks type     Unmovable      Movable  Reclaimable ...
    Node 0, zone   Normal         3000           12            4 ...

Blocks of type Unmovable are those that hold, or held, the kernel's own memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kleak.parsers._lines import Damage, OnError, Source, iterate_lines
from kleak.parsers.errors import ParseError

HEAD = re.compile(
    r"Page block order: \d+|Pages per block:\s+\d+|Free pages count per migrate type at order.*"
    r"|Number of (?:mixed )?blocks type .*"
)
FREE_ROW = re.compile(
    r"Node\s+(?P<node>\d+), zone\s+(?P<zone>\S+), type\s+(?P<type>\S+)(?P<counts>(?:\s+>?\d+)+)"
)
_BLOCK_HEAD = re.compile(r"Number of blocks type\s+(?P<types>\S.*)")
_BLOCK_ROW = re.compile(r"Node\s+\d+, zone\s+(?P<zone>\S+)(?P<counts>(?:\s+\d+)+)")
_ORDER = re.compile(r"Page block order: (\d+)")


@dataclass(frozen=True, slots=True)
class Pagetypeinfo:
    """Blocks by migrate type over all zones, free pages by type; pages of one block."""

    blocks: dict[str, int]
    free_pages: dict[str, int]
    pages_per_block: int | None
    problems: tuple[ParseError, ...] = ()


def parse(source: Source, *, errors: OnError = "raise") -> Pagetypeinfo:
    """Parse one report. Raises ParseError at another line; "collect" skips it."""
    damage = Damage(errors)
    blocks: dict[str, int] = {}
    free: dict[str, int] = {}
    types: list[str] = []
    pages_per_block: int | None = None
    for number, line in enumerate(iterate_lines(source), 1):
        text = line.strip()
        if not text:
            continue
        if (match := _ORDER.fullmatch(text)) is not None:
            pages_per_block = 1 << min(int(match[1]), 32)
        elif (match := _BLOCK_HEAD.fullmatch(text)) is not None:
            types = match["types"].split()
        elif (match := FREE_ROW.fullmatch(text)) is not None:
            counts = [int(word.lstrip(">")) for word in match["counts"].split()]
            pages = sum(count << order for order, count in enumerate(counts[:32]))
            free[match["type"]] = free.get(match["type"], 0) + pages
        elif types and (match := _BLOCK_ROW.fullmatch(text)) is not None:
            for name, count in zip(types, match["counts"].split(), strict=False):
                blocks[name] = blocks.get(name, 0) + int(count)
        elif HEAD.fullmatch(text) is None:
            damage.report("not a line of /proc/pagetypeinfo", number, line)
    return Pagetypeinfo(blocks, free, pages_per_block, tuple(damage.problems))
