"""/proc/vmstat, printed by vmstat_show() in mm/vmstat.c.

    nr_free_pages 50000
    nr_slab_unreclaimable 1700000

Counts are pages but for nr_kernel_stack, which is kB from 2.6.36 on, and for events.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kleak.parsers._lines import Damage, OnError, Source, iterate_lines, undress
from kleak.parsers.errors import ParseError

_ROW = re.compile(r"([a-z][a-z0-9_]+) (\d+)")


@dataclass(frozen=True, slots=True)
class Vmstat:
    """A whole report: the kernel's names and values."""

    values: dict[str, int]
    problems: tuple[ParseError, ...] = ()


def parse(source: Source, *, errors: OnError = "raise") -> Vmstat:
    """Parse one report.

    Raises ParseError at a damaged line and at a name that occurs twice (a second report); with
    errors="collect" such lines are skipped.
    """
    damage = Damage(errors)
    values: dict[str, int] = {}
    for number, line in enumerate(iterate_lines(source), 1):
        text = undress(line).strip()
        if not text:
            continue
        match = _ROW.fullmatch(text)
        if match is None:
            damage.report("not a line of /proc/vmstat", number, line)
        elif match[1] in values:
            damage.report("name occurs twice: a second report begins", number, line)
        else:
            values[match[1]] = int(match[2])
    return Vmstat(values, tuple(damage.problems))
