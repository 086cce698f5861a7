"""The classes of memory over snapshots, and triage's findings, as text."""

from __future__ import annotations

from tabulate import tabulate

from kleak.analysis.snapshots.meminfo import ClassTrend, MemoryTrends
from kleak.units import size

_HEADERS = ("class", "owner", "first", "last", "per step", "90 % interval", "")


def render(memory: MemoryTrends, *, exact: bool = False) -> str:
    """The table of classes, with a newline at its end; what grows is marked."""
    rows = [_row(item, exact) for item in memory.classes]
    align = ("left", "left", "right", "right", "right", "left", "left")
    return tabulate(rows, _HEADERS, tablefmt="plain", colalign=align, disable_numparse=True) + "\n"


def _row(item: ClassTrend, exact: bool) -> tuple[str, ...]:
    trend = item.trend
    interval = "-"
    if trend.low is not None and trend.high is not None:
        interval = f"{_signed(trend.low, exact)} to {_signed(trend.high, exact)}"
    mark = {True: "grows", None: "too few to tell"}.get(trend.grows, "")
    if trend.falls:
        mark = "falls"
    return (
        item.name,
        item.owner,
        size(round(trend.figures[0]), exact=exact),
        size(round(trend.figures[-1]), exact=exact),
        _signed(trend.per_step, exact),
        interval,
        mark if trend.total or trend.grows else "",
    )


def _signed(size_bytes: float, exact: bool) -> str:
    text = size(round(size_bytes), exact=exact)
    return text if size_bytes < 0 else f"+{text}"
