"""/proc/slabinfo, printed by print_slabinfo_header() and cache_show() in mm/slab_common.c.

    slabinfo - version: 2.1
    # name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables ...
    kmalloc-2k 456 464 2048 16 8 : tunables 0 0 0 : slabdata 29 29 0

Version 1.x (Linux 2.4) has other columns, and pages of a slab at the end:

    ip_conntrack      300000 300000    352 27272 27272    1

SLUB counts an object in a CPU's own slab (and, from 6.18 on, in a sheaf) as active, so
``active_objects`` overstates. A cache that was merged into another has no line of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from kleak.parsers._lines import Damage, OnError, Source, iterate_lines, undress
from kleak.parsers.errors import ParseError

_VERSION = re.compile(r"slabinfo - version: (\d+\.\d+)(?: .*)?")
# a cache's name may hold spaces on older kernels, so the numbers are what is matched
_ROW = re.compile(
    r"(?P<name>\S.*?)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+: tunables\s+\d+\s+\d+\s+\d+"
    r"\s+: slabdata\s+(\d+)\s+(\d+)\s+\d+(?:\s+:.*)?"
)
# a row of 2.x that was cut behind its first columns, which tell all that the rest repeats
_CUT_ROW = re.compile(
    r"(?P<name>\S.*?)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)(?:\s+:(?: tunables.*)?)?"
)
_OLD_ROW = re.compile(r"(?P<name>\S.*?)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)(?:\s+:.*)?")


@dataclass(frozen=True, slots=True)
class Cache:
    """One slab cache. ``object_size_bytes`` is what one object takes in the slab."""

    name: str
    active_objects: int
    objects: int
    object_size_bytes: int
    objects_per_slab: int
    pages_per_slab: int
    active_slabs: int
    slabs: int


@dataclass(frozen=True, slots=True)
class Slabinfo:
    """A whole report, in the kernel's order. ``version`` is None where the header is missing."""

    version: str | None
    caches: tuple[Cache, ...]
    problems: tuple[ParseError, ...] = ()


def parse(source: Source, *, errors: OnError = "raise") -> Slabinfo:
    """Parse one report.

    Raises ParseError at a damaged row and where a second report begins; with
    errors="collect" these go to ``problems`` and the first report is the result.
    """
    damage = Damage(errors)
    found: Slabinfo | None = None
    for report in stream(source, errors=errors):
        if found is not None:
            damage.report("a second /proc/slabinfo begins; read it with stream()")
            break
        found = report
    if found is None:
        raise ParseError("no /proc/slabinfo in this text")
    return Slabinfo(found.version, found.caches, (*found.problems, *damage.problems))


def stream(source: Source, *, errors: OnError = "raise") -> Iterator[Slabinfo]:
    """Yield one Slabinfo for each report in ``source``; a version line begins the next."""
    version: str | None = None
    caches: list[Cache] = []
    damage = Damage(errors)
    for number, line in enumerate(iterate_lines(source), 1):
        bare = undress(line).strip()
        header = _VERSION.fullmatch(bare)
        if header is not None:
            if caches or damage.problems:
                yield Slabinfo(version, tuple(caches), tuple(damage.problems))
            version, caches, damage = header[1], [], Damage(errors)
            if not version.startswith(("1.", "2.")):
                damage.report(f"slabinfo version {version} is not known", number, line)
            continue
        if not bare or bare.startswith("#"):
            continue
        cache = _parse_row(bare, version)
        if cache is None:
            damage.report("not a slabinfo row", number, line)
        else:
            caches.append(cache)
    if version is not None or caches or damage.problems:
        yield Slabinfo(version, tuple(caches), tuple(damage.problems))


def _parse_row(text: str, version: str | None) -> Cache | None:
    if version is not None and version.startswith("1."):
        match = _OLD_ROW.fullmatch(text)
        if match is None:
            return None
        active, objects, size, active_slabs, slabs, pages = map(int, match.groups()[1:])
        per_slab = objects // slabs if slabs else 0
        return Cache(match["name"], active, objects, size, per_slab, pages, active_slabs, slabs)
    match = _ROW.fullmatch(text)
    if match is not None:
        return Cache(match["name"], *map(int, match.groups()[1:]))
    match = _CUT_ROW.fullmatch(text)
    if match is None:
        return None
    active, objects, size, per_slab, pages = map(int, match.groups()[1:])
    # the kernel prints num_objs as num_slabs * objperslab: a row that breaks this is none
    if not per_slab or objects % per_slab or active > objects or not pages:
        return None
    slabs = objects // per_slab
    return Cache(match["name"], active, objects, size, per_slab, pages, slabs, slabs)
