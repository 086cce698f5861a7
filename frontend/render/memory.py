"""The classes of memory over snapshots, and triage's findings, as text."""

from __future__ import annotations

import textwrap

from tabulate import tabulate

from kleak.render.escape import printable
from kleak.snapshots.consumers import Ranking
from kleak.snapshots.triage import Triage
from kleak.snapshots.witnesses.meminfo import ClassTrend, MemoryTrends
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
    mark = {True: "grows", None: "too few to tell"}.get(item.grows, "")
    if item.falls:
        mark = "falls"
    return (
        item.name,
        item.owner,
        size(round(trend.figures[0]), exact=exact),
        size(round(trend.figures[-1]), exact=exact),
        _signed(trend.per_step, exact),
        interval,
        mark if trend.total else "",
    )


def _signed(size_bytes: float, exact: bool) -> str:
    text = size(round(size_bytes), exact=exact)
    return text if size_bytes < 0 else f"+{text}"


def render_triage(found: Triage, *, width: int = 80, exact: bool = False) -> str:
    """What triage found: the classes, then the findings with what to ask next."""
    rows = [
        (
            item.name,
            item.owner,
            size(item.size_bytes, exact=exact),
            "-" if item.share_percent is None else f"{item.share_percent:.1f} %",
        )
        for item in found.standings
    ]
    blocks = []
    if rows:
        align = ("left", "left", "right", "right")
        blocks.append(
            tabulate(
                rows,
                ("class", "owner", "size", "of total"),
                tablefmt="plain",
                colalign=align,
                disable_numparse=True,
            )
        )
    blocks += [_ranking(item, exact) for item in found.rankings]
    for finding in found.findings:
        mark = "ABNORMAL" if finding.abnormal else "missing" if finding.missing else "ok"
        if finding.noted:
            mark = "note"
        text = printable(f"{mark:<9}{finding.subject}: {finding.says}")
        lines = textwrap.wrap(text, width, subsequent_indent=" " * 9, break_on_hyphens=False)
        if finding.ask is not None:
            # a command keeps its line however long it is: people copy it
            lines.append(printable(f"{'':<9}next: {finding.ask}"))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _ranking(ranking: Ranking, exact: bool) -> str:
    """The greatest holders that a report names, with their shares."""
    rows = [
        (
            size(one.amount, exact=exact) if ranking.unit == "bytes" else f"{one.amount:,}",
            f"{one.share_percent:.1f} %",
            one.detail if ranking.unit == "bytes" else ranking.unit,
            printable(one.name),
        )
        for one in ranking.consumers
    ]
    if ranking.left_out:
        rows.append(("", "", "", f"and {ranking.left_out} more"))
    heads = ("size" if ranking.unit == "bytes" else "count", "share", "", ranking.report)
    align = ("right", "right", "right", "left")
    return tabulate(rows, heads, tablefmt="plain", colalign=align, disable_numparse=True)
