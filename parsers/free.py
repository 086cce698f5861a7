"""What free(1) and the head of top(1) print: /proc/meminfo, summed up in few columns.

                   total        used        free      shared  buff/cache   available
    Mem:            7812        7500         120          10         192         290

    MiB Mem :   7812.5 total,    195.3 free,   7500.0 used,    117.2 buff/cache

free does not print its unit (kB unless -m, -g or -b was given): then ``unit_bytes`` is None.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kleak.parsers._lines import Damage, OnError, Source, iterate_lines
from kleak.parsers.errors import ParseError

_UNITS = {"B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
HEAD = re.compile(
    r"(?:total\s+used\s+free(?:\s+(?:shared|buff/cache|buffers|cache|cached|available))+)"
)
ROW = re.compile(r"(?:Mem|Swap|-/\+ buffers/cache|Low|High|Total)\s?:(?:\s+[\d.]+[A-Za-z]*)+")
TOP = re.compile(
    r"(?:(?P<unit>[KMGTP])iB )?Mem ?:\s*(?P<figures>[\d.]+[kKmMgG+]*\+?\s*"
    r"(?:total|used|free|buff/cache|buffers|shrd|cached|avail Mem).*)"
)
TOP_OTHER = re.compile(
    r"top - .*load average.*|Tasks:\s.*|%?Cpu\(s\):.*"
    r"|(?:[KMGT]iB )?Swap ?:\s*[\d.]+.*(?:total|used|free).*"
)
_TOP_FIGURE = re.compile(r"([\d.]+)\s?([kKmMgG]?)\+?\s*(total|used|free|buff/cache|buffers|cached)")


@dataclass(frozen=True, slots=True)
class Free:
    """One reading: columns by name, as printed, and what one of them is in bytes."""

    tool: str
    figures: dict[str, float]
    unit_bytes: int | None
    problems: tuple[ParseError, ...] = ()

    @property
    def used_share(self) -> float | None:
        """Part of all memory that is used, by the tool's own idea of it, 0 to 1."""
        total, used = self.figures.get("total"), self.figures.get("used")
        return used / total if total and used is not None else None


def parse(source: Source, *, errors: OnError = "raise") -> Free:
    """Parse one reading. Raises ParseError at a line of neither tool, and without a figure."""
    damage = Damage(errors)
    columns: list[str] = []
    for number, line in enumerate(iterate_lines(source), 1):
        text = line.strip()
        if not text or TOP_OTHER.fullmatch(text):
            continue
        if HEAD.fullmatch(text):
            columns = text.split()
        elif (match := TOP.fullmatch(text)) is not None:
            return _of_top(match, damage)
        elif ROW.fullmatch(text):
            words = text.split(":", 1)[1].split()
            if not text.startswith("Mem"):
                continue
            figures, unit = _figures(words, columns)
            return Free("free", figures, unit, tuple(damage.problems))
        else:
            damage.report("not a line of free or top", number, line)
    raise ParseError("no figures of free or top in this text")


def _figures(words: list[str], columns: list[str]) -> tuple[dict[str, float], int | None]:
    names = columns or ["total", "used", "free"]
    units = {word[-1:].upper() if not word.endswith("i") else word[-2].upper() for word in words}
    if not units & set("KMGTP"):
        return dict(zip(names, (float(word) for word in map(_bare, words)), strict=False)), None
    return {name: _in_bytes(word) for name, word in zip(names, words, strict=False)}, 1


def _bare(word: str) -> str:
    return re.sub(r"[^\d.]", "", word) or "0"


def _in_bytes(word: str) -> float:
    match = re.fullmatch(r"([\d.]+)([A-Za-z]?).*", word)
    if match is None:
        return 0.0
    return float(match[1]) * _UNITS.get(match[2].upper() or "B", 1)


def _of_top(match: re.Match[str], damage: Damage) -> Free:
    text = match["figures"]
    unit = match["unit"]
    figures = {}
    for value, suffix, name in _TOP_FIGURE.findall(text):
        unit = unit or suffix.upper() or "K"
        figures[name] = float(value)
    return Free("top", figures, _UNITS[unit or "K"], tuple(damage.problems))
