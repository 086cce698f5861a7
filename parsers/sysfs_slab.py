"""/sys/kernel/slab/CACHE/ATTRIBUTE, as grep and tail print several small files at once.

    /sys/kernel/slab/kmalloc-2k/objects:3300000 N0=3300000
    /sys/kernel/slab/kmalloc-2k/object_size:2048

Printed by the show functions of mm/slub.c. ``slabs`` times 2^``order`` are pages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kleak.parsers._lines import Damage, OnError, Source, iterate_lines
from kleak.parsers.errors import ParseError

_ROW = re.compile(
    r"(?:\S*/)?slab/(?P<cache>[^/]+)/(?P<attribute>[a-z_]+):\s?(?P<value>-?\d+)(?:\s.*)?"
)


@dataclass(frozen=True, slots=True)
class SysfsSlab:
    """A whole text: the first figure of each attribute, by cache and attribute."""

    caches: dict[str, dict[str, int]]
    problems: tuple[ParseError, ...] = ()


def parse(source: Source, *, errors: OnError = "raise") -> SysfsSlab:
    """Parse one text. Raises ParseError at any other line; "collect" skips it."""
    damage = Damage(errors)
    caches: dict[str, dict[str, int]] = {}
    for number, line in enumerate(iterate_lines(source), 1):
        text = line.strip()
        if not text:
            continue
        match = _ROW.fullmatch(text)
        if match is None:
            damage.report("no attribute of a slab cache", number, line)
        else:
            caches.setdefault(match["cache"], {})[match["attribute"]] = int(match["value"])
    return SysfsSlab(caches, tuple(damage.problems))
