"""Tables of processes with their resident memory: ps(1) and top(1).

USER         PID %CPU %MEM    VSZ   RSS TTY      STAT START   TIME COMMAND
root         541  0.1  2.0   4400   892 ?        Ss   12:00   0:01 /usr/sbin/foo

    PID USER      PR  NI    VIRT    RES    SHR S  %CPU  %MEM     TIME+ COMMAND
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kleak.parsers._lines import Damage, OnError, Source, iterate_lines
from kleak.parsers.errors import ParseError

HEAD = re.compile(r"(?=.*\bPID\b)(?=.*\b(?:RSS|RES)\b)(?=.*\b(?:COMMAND|CMD|COMM)\b)[A-Z%+ ]+")
ROW = re.compile(r"(?:\S+\s+){3,}\S.*")
_UNITS = {"": 1024, "k": 1024, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


@dataclass(frozen=True, slots=True)
class Process:
    """One process and its resident memory in bytes; shared pages count in each."""

    pid: int
    name: str
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Processes:
    """A whole table."""

    processes: tuple[Process, ...]
    problems: tuple[ParseError, ...] = ()


def is_row(head: str, text: str) -> bool:
    """Whether ``text`` is a row under the columns of ``head``."""
    return _parse_row(head.split(), text) is not None


def parse(source: Source, *, errors: OnError = "raise") -> Processes:
    """Parse one table. Raises ParseError at another line; "collect" skips it."""
    damage = Damage(errors)
    columns: list[str] = []
    found = []
    for number, line in enumerate(iterate_lines(source), 1):
        text = line.strip()
        if not text:
            continue
        if HEAD.fullmatch(text):
            columns = text.split()
            continue
        process = _parse_row(columns, text)
        if process is None:
            damage.report("not a process", number, line)
        else:
            found.append(process)
    return Processes(tuple(found), tuple(damage.problems))


def _parse_row(columns: list[str], text: str) -> Process | None:
    words = text.split(None, len(columns) - 1) if columns else []
    if len(words) < len(columns) or not words:
        return None
    values = dict(zip(columns, words, strict=True))
    rss = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgt]?)", values.get("RSS") or values.get("RES") or "")
    if rss is None or not values.get("PID", "").isdigit():
        return None
    name = values.get("COMMAND") or values.get("CMD") or values.get("COMM") or ""
    return Process(int(values["PID"]), name, round(float(rss[1]) * _UNITS[rss[2]]))
