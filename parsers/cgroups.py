"""/proc/cgroups, printed by proc_cgroupstats_show(), and memory.stat of a cgroup.

    #subsys_name	hierarchy	num_cgroups	enabled
    memory	9	120534	1

num_cgroups counts those that were removed and are still held by memory charged to them.
memory.stat (version 2, memory_stat_format() in mm/memcontrol.c) has "slab_unreclaimable 123456",
in bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kleak.parsers._lines import Damage, OnError, Source, iterate_lines
from kleak.parsers.errors import ParseError

HEAD = re.compile(r"#subsys_name\s+hierarchy\s+num_cgroups\s+enabled")
ROW = re.compile(
    r"(?P<name>cpuset|cpu|cpuacct|blkio|io|memory|devices|freezer|net_cls|perf_event|net_prio"
    r"|hugetlb|pids|rdma|misc|debug|dmem)\s+\d+\s+(?P<count>\d+)\s+[01]"
)
STAT = re.compile(
    r"(?P<name>anon|file|kernel|kernel_stack|pagetables|sec_pagetables|percpu|sock|vmalloc|shmem"
    r"|zswap|zswapped|file_mapped|file_dirty|file_writeback|swapcached|anon_thp|file_thp|shmem_thp"
    r"|inactive_anon|active_anon|inactive_file|active_file|unevictable|slab_reclaimable"
    r"|slab_unreclaimable|slab) (?P<value>\d+)"
)


@dataclass(frozen=True, slots=True)
class Cgroups:
    """``counts``: cgroups by controller."""

    counts: dict[str, int]
    problems: tuple[ParseError, ...] = ()


@dataclass(frozen=True, slots=True)
class MemoryStat:
    """memory.stat of one cgroup, in bytes under the kernel's names."""

    bytes_by_name: dict[str, int]
    problems: tuple[ParseError, ...] = ()


def parse(source: Source, *, errors: OnError = "raise") -> Cgroups:
    """Parse /proc/cgroups. Raises ParseError at another line; "collect" skips it."""
    damage = Damage(errors)
    counts: dict[str, int] = {}
    for number, line in enumerate(iterate_lines(source), 1):
        text = line.strip()
        if not text or HEAD.fullmatch(text):
            continue
        match = ROW.fullmatch(text)
        if match is None:
            damage.report("not a row of /proc/cgroups", number, line)
        else:
            counts[match["name"]] = int(match["count"])
    return Cgroups(counts, tuple(damage.problems))


def parse_stat(source: Source, *, errors: OnError = "raise") -> MemoryStat:
    """Parse memory.stat. Raises ParseError at another line; "collect" skips it."""
    damage = Damage(errors)
    values: dict[str, int] = {}
    for number, line in enumerate(iterate_lines(source), 1):
        text = line.strip()
        if not text:
            continue
        match = STAT.fullmatch(text)
        if match is None:
            damage.report("not a row of memory.stat", number, line)
        else:
            values[match["name"]] = int(match["value"])
    return MemoryStat(values, tuple(damage.problems))
