"""/proc/buddyinfo, printed by frag_show() in mm/vmstat.c.

    Node 0, zone      DMA      0      0      0      0      0      0      0    ...      3
    Node 0, zone   Normal   1071    805    620    375    202     66     29    ...    340

One column an order: the number of free blocks of 2^order pages. Pages on per-CPU lists are not
in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kleak.parsers._lines import Damage, OnError, Source, iterate_lines, undress
from kleak.parsers.errors import ParseError

_ROW = re.compile(r"Node\s+(\d+),\s+zone\s+(\S+)((?:\s+\d+)+)")


@dataclass(frozen=True, slots=True)
class Zone:
    """One zone. ``free_blocks[order]`` is the number of free blocks of 2**order pages."""

    node: int
    name: str
    free_blocks: tuple[int, ...]

    @property
    def free_pages(self) -> int:
        """All free pages of the zone's buddy lists."""
        return sum(count << order for order, count in enumerate(self.free_blocks))


@dataclass(frozen=True, slots=True)
class Buddyinfo:
    """A whole report."""

    zones: tuple[Zone, ...]
    problems: tuple[ParseError, ...] = ()


def parse(source: Source, *, errors: OnError = "raise") -> Buddyinfo:
    """Parse one report.

    Raises ParseError at a damaged row, at a row with fewer orders than the others, and at a
    zone that occurs twice (a second report); with errors="collect" these rows are skipped.
    """
    damage = Damage(errors)
    zones: dict[tuple[int, str], Zone] = {}
    orders: int | None = None
    for number, line in enumerate(iterate_lines(source), 1):
        bare = undress(line).strip()
        if not bare:
            continue
        match = _ROW.fullmatch(bare)
        if match is None:
            damage.report("not a buddyinfo row", number, line)
            continue
        zone = Zone(int(match[1]), match[2], tuple(map(int, match[3].split())))
        orders = len(zone.free_blocks) if orders is None else orders
        if len(zone.free_blocks) != orders:
            damage.report("row has not as many orders as the first", number, line)
        elif (zone.node, zone.name) in zones:
            damage.report("zone occurs twice: a second report begins", number, line)
        else:
            zones[zone.node, zone.name] = zone
    return Buddyinfo(tuple(zones.values()), tuple(damage.problems))
