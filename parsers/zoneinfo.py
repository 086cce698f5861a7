"""/proc/zoneinfo, printed by zoneinfo_show_print() in mm/vmstat.c.

    Node 0, zone      DMA
      per-node stats
          nr_slab_unreclaimable 6664
      pages free     3840
            min      47
          nr_free_pages 3840
      pagesets
        cpu: 0
                  count:    213

What it adds to /proc/meminfo for a search of leaks: counts by node and zone, and the pages that
sit on per-CPU lists (``pagesets``), which no field of /proc/meminfo names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from kleak.parsers._lines import Damage, OnError, Source, iterate_lines, undress
from kleak.parsers.errors import ParseError

_ZONE = re.compile(r"Node\s+(\d+),\s+zone\s+(\S+)")
_STAT = re.compile(r"(?P<name>[A-Za-z]\w*)(?P<colon>:?)\s+(?P<value>\S+)")
_THRESHOLD = re.compile(r"vm stats threshold:\s+(\d+)")
_WATERMARKS = frozenset(
    ("min", "low", "high", "boost", "promo", "spanned", "present", "managed", "cma", "scanned")
)


@dataclass(slots=True)
class _Draft:
    node: int
    name: str
    pages: dict[str, int] = field(default_factory=dict)
    stats: dict[str, int] = field(default_factory=dict)
    node_stats: dict[str, int] | None = None
    per_cpu_pages: int | None = None
    counter_slack: int | None = None


@dataclass(frozen=True, slots=True)
class Zone:
    """One zone. All values are pages or events, under the kernel's names.

    ``pages`` has "free" and the watermarks and sizes. ``node_stats`` is there for the first
    zone of a node only. ``per_cpu_pages`` is the sum over all CPUs' lists of free pages; None
    where the zone has no pagesets (it is empty). ``counter_slack`` is the sum over the CPUs of
    "vm stats threshold": so far a count of the zone may be off from what the CPUs know.
    """

    node: int
    name: str
    pages: dict[str, int]
    stats: dict[str, int]
    node_stats: dict[str, int] | None
    per_cpu_pages: int | None
    counter_slack: int | None


@dataclass(frozen=True, slots=True)
class Zoneinfo:
    """A whole report."""

    zones: tuple[Zone, ...]
    problems: tuple[ParseError, ...] = ()


def parse(source: Source, *, errors: OnError = "raise") -> Zoneinfo:
    """Parse one report.

    Raises ParseError at a statistic whose value is no number, at one outside a zone, and at a
    zone that occurs twice (a second report); with errors="collect" such lines are skipped.
    """
    damage = Damage(errors)
    drafts: dict[tuple[int, str], _Draft] = {}
    draft: _Draft | None = None
    section: str | None = None
    for number, line in enumerate(iterate_lines(source), 1):
        bare = undress(line).strip()
        if not bare:
            continue
        head = _ZONE.fullmatch(bare)
        if head is not None:
            draft = _Draft(int(head[1]), head[2])
            section = "zone"
            if (draft.node, draft.name) in drafts:
                damage.report("zone occurs twice: a second report begins", number, line)
            else:
                drafts[draft.node, draft.name] = draft
        elif draft is None:
            damage.report("no zone begins before this line", number, line)
        elif bare == "per-node stats":
            draft.node_stats = {}
            section = "node"
        elif bare == "pagesets":
            draft.per_cpu_pages = 0
            section = "pagesets"
        elif (threshold := _THRESHOLD.fullmatch(bare)) is not None:
            draft.counter_slack = (draft.counter_slack or 0) + int(threshold[1])
        elif not bare.startswith("protection:"):
            section = _take_stat(draft, section, bare, damage, number, line)
    zones = tuple(
        Zone(
            draft.node,
            draft.name,
            draft.pages,
            draft.stats,
            draft.node_stats,
            draft.per_cpu_pages,
            draft.counter_slack,
        )
        for draft in drafts.values()
    )
    return Zoneinfo(zones, tuple(damage.problems))


def _take_stat(
    draft: _Draft, section: str | None, bare: str, damage: Damage, number: int, line: str
) -> str | None:
    """Book one line of a zone. Returns the section that the next line is in."""
    if bare.startswith("pages free"):
        section, bare = "zone", bare.removeprefix("pages ")
    match = _STAT.fullmatch(bare)
    if match is None or not match["value"].isdigit():
        damage.report("statistic does not parse", number, line)
        return section
    name, value = match["name"], int(match["value"])
    if section == "pagesets":
        if match["colon"] and name == "count" and draft.per_cpu_pages is not None:
            draft.per_cpu_pages += value
    elif section == "node" and draft.node_stats is not None:
        draft.node_stats[name] = value
    else:
        book = draft.pages if name == "free" or name in _WATERMARKS else draft.stats
        book[name] = value
    return section
