"""Tables of slab caches that tools print out of the kernel's figures.

slabtop (procps):

      OBJS ACTIVE  USE OBJ SIZE  SLABS OBJ/SLAB CACHE SIZE NAME
    3300000 3300000 100%    2.00K 206250       16   6600000K kmalloc-2048

crash, ``kmem -s`` (before 7.2 with the name behind the address):

    CACHE             OBJSIZE  ALLOCATED     TOTAL  SLABS  SSIZE  NAME
    ffff890c47c0e800     2048    3300000   3300000 206250    32k  kmalloc-2048

the kernel's own tools/mm/slabinfo, whose Space is in bytes or in decimal K, M, G:

    Name                   Objects Objsize           Space Slabs/Part/Cpu  O/S O %Fr %Ef Flg
    kmalloc-2048           3300000    2048        6758400000    206240/0/10   16 3   0 100

/proc/spl/kmem/slab of ZFS:

    name                                    flags      size     alloc slabsize  objsize ...
    zio_cache                             0x00100         - 123456784        -     1280 ...

``vmstat -m``:

    Cache                       Num  Total   Size  Pages
    kmalloc-2048            3300000 3300000   2048     16
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from kleak.parsers._lines import Damage, OnError, Source, iterate_lines, undress
from kleak.parsers.errors import ParseError

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@dataclass(frozen=True, slots=True)
class CacheUsage:
    """What one cache holds. ``size_bytes`` is that of its slabs; None where not printed."""

    name: str
    size_bytes: int
    active_objects: int | None = None
    object_size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class SlabTable:
    """A whole table. ``tool`` is a key of ROWS. ``totals`` are slabtop's head lines."""

    tool: str
    caches: tuple[CacheUsage, ...]
    problems: tuple[ParseError, ...] = ()


def _scaled(text: str, units: dict[str, int]) -> int:
    match = re.fullmatch(r"([\d.]+)([A-Za-z]?)(?:i?[bB])?", text)
    if match is None or match[2].lower() not in units:
        raise ValueError(text)
    return round(float(match[1]) * units[match[2].lower()])


def _slabtop(match: re.Match[str]) -> CacheUsage:
    size = round(float(match["size"]) * _UNITS[match["unit"].lower()])
    kilobytes = int(match["cache"]) * 1024
    return CacheUsage(match["name"], kilobytes, int(match["active"]), size)


def _crash(match: re.Match[str]) -> CacheUsage:
    slab = _scaled(match["slab"], _UNITS)
    return CacheUsage(
        match["name"], int(match["slabs"]) * slab, int(match["used"]), int(match["size"])
    )


def _tool(match: re.Match[str]) -> CacheUsage:
    space = _scaled(match["space"], _DECIMAL)
    return CacheUsage(match["name"], space, int(match["objects"]), int(match["size"]))


def _spl(match: re.Match[str]) -> CacheUsage:
    figures = match["rest"].split()
    size, alloc, _, object_size = (None if word == "-" else int(word) for word in figures[:4])
    # with the kernel's own slabs behind it, spl knows what was asked for only
    objects = None if len(figures) < 9 or figures[8] == "-" else int(figures[8])
    return CacheUsage(match["name"], size or alloc or 0, objects, object_size)


def _vmstat_m(match: re.Match[str]) -> CacheUsage:
    size = int(match["size"])
    return CacheUsage(match["name"], int(match["total"]) * size, int(match["used"]), size)


# The row of each tool, and what to make of it.
ROWS: dict[str, tuple[re.Pattern[str], Callable[[re.Match[str]], CacheUsage]]] = {
    "slabtop": (
        re.compile(
            r"\d+\s+(?P<active>\d+)\s+\d+%\s+(?P<size>\d+\.\d+)(?P<unit>[KM])\s+\d+\s+\d+\s+"
            r"(?P<cache>\d+)K\s+(?P<name>\S.*)"
        ),
        _slabtop,
    ),
    "crash kmem -s": (
        re.compile(
            r"[0-9a-f]{8,16}\s+(?:(?P<size>\d+)\s+(?P<used>\d+)\s+\d+\s+(?P<slabs>\d+)\s+"
            r"(?P<slab>\d+k)\s+(?P<name>\S.*))"
        ),
        _crash,
    ),
    "crash kmem -s, old": (
        re.compile(
            r"[0-9a-f]{8,16}\s+(?P<name>\S+(?: \S+)*)\s+(?P<size>\d+)\s+(?P<used>\d+)\s+\d+\s+"
            r"(?P<slabs>\d+)\s+(?P<slab>\d+k)"
        ),
        _crash,
    ),
    "slabinfo tool": (
        re.compile(
            r"(?P<name>\S+)\s+(?P<objects>\d+)\s+(?P<size>\d+)\s+(?P<space>\d+(?:\.\d+)?[KMGT]?)\s+"
            r"\d+/\d+/\d+\s+\d+\s+\d+\s+\d+\s+\d+(?:\s+\S+)?"
        ),
        _tool,
    ),
    "spl": (
        re.compile(r"(?P<name>\S+)\s+0x[0-9a-f]{5,}\s+(?P<rest>(?:\d+|-)(?:\s+(?:\d+|-)){5,14})"),
        _spl,
    ),
    "vmstat -m": (
        re.compile(r"(?P<name>\S.*?)\s+(?P<used>\d+)\s+(?P<total>\d+)\s+(?P<size>\d+)\s+\d+"),
        _vmstat_m,
    ),
}
HEADS = {
    "slabtop": re.compile(
        r"OBJS\s+ACTIVE\s+USE\s+OBJ SIZE\s+SLABS\s+OBJ/SLAB\s+CACHE SIZE\s+NAME"
        r"|(?:Active / Total|Minimum / Average / Maximum) .*: .*"
    ),
    "crash kmem -s": re.compile(r"CACHE\s+OBJSIZE\s+ALLOCATED\s+TOTAL\s+SLABS\s+SSIZE\s+NAME"),
    "crash kmem -s, old": re.compile(r"CACHE\s+NAME\s+OBJSIZE\s+ALLOCATED\s+TOTAL\s+SLABS\s+SSIZE"),
    "slabinfo tool": re.compile(r"Name\s+Objects\s+Objsize\s+(?:Space|Loss)\s+Slabs/Part/Cpu.*"),
    "spl": re.compile(r"-{5,} cache -{5,}.*|name\s+flags\s+size\s+alloc\s+slabsize\s+objsize.*"),
    "vmstat -m": re.compile(r"Cache\s+Num\s+Total\s+Size\s+Pages"),
}


def parse(tool: str, source: Source, *, errors: OnError = "raise") -> SlabTable:
    """Parse one table of ``tool``, a key of ROWS.

    Raises ParseError at a line that is neither row nor head, and at a cache that occurs twice;
    with errors="collect" such lines are skipped. Raises KeyError for an unknown tool.
    """
    pattern, build = ROWS[tool]
    damage = Damage(errors)
    caches: dict[str, CacheUsage] = {}
    for number, line in enumerate(iterate_lines(source), 1):
        text = undress(line).strip()
        if not text or HEADS[tool].fullmatch(text) is not None:
            continue
        match = pattern.fullmatch(text)
        if match is None:
            damage.report(f"not a row of {tool}", number, line)
            continue
        try:
            cache = build(match)
        except (ValueError, KeyError, OverflowError):
            damage.report(f"a figure of {tool} does not parse", number, line)
            continue
        if cache.name in caches:
            damage.report("cache occurs twice: a second table begins", number, line)
        else:
            caches[cache.name] = cache
    return SlabTable(tool, tuple(caches.values()), tuple(damage.problems))
