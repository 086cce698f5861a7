"""``smem -w``: memory by area, in kB.

Area                           Used      Cache   Noncache
kernel dynamic memory       7500000     210000    7290000
userspace memory             250000      50000     200000
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kleak.parsers._lines import Damage, OnError, Source, iterate_lines
from kleak.parsers.errors import ParseError

HEAD = re.compile(r"Area\s+Used\s+Cache\s+Noncache")
ROW = re.compile(
    r"(?P<area>firmware/hardware|kernel image|kernel dynamic memory|userspace memory|free memory)"
    r"\s+(?P<used>\d+)\s+(?P<cache>\d+)\s+(?P<noncache>\d+)"
)


@dataclass(frozen=True, slots=True)
class Area:
    """One row, in bytes."""

    name: str
    used_bytes: int
    cache_bytes: int
    noncache_bytes: int


@dataclass(frozen=True, slots=True)
class Smem:
    """A whole table."""

    areas: tuple[Area, ...]
    problems: tuple[ParseError, ...] = ()


def parse(source: Source, *, errors: OnError = "raise") -> Smem:
    """Parse one table. Raises ParseError at another line; "collect" skips it."""
    damage = Damage(errors)
    areas = []
    for number, line in enumerate(iterate_lines(source), 1):
        text = line.strip()
        if not text or HEAD.fullmatch(text):
            continue
        match = ROW.fullmatch(text)
        if match is None:
            damage.report("not a row of smem -w", number, line)
        else:
            figures = (int(match[name]) * 1024 for name in ("used", "cache", "noncache"))
            areas.append(Area(match["area"], *figures))
    return Smem(tuple(areas), tuple(damage.problems))
