"""What changed between two reports, as a table and as JSON, ``kleak.diff/1``."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from tabulate import tabulate

from kleak.analysis.comparison import Change, Comparison, Kind, Side
from kleak.model.report import Report
from kleak.render.escape import printable
from kleak.render.stack_text import function
from kleak.units import size
from kleak.wording import plural

SCHEMA = "kleak.diff/1"
HEADERS = ("change", "verdict", "allocator", "count", "size", "a cycle", "allocated in")
ALIGN = ("left", "left", "left", "right", "right", "right", "left")
SHOWN_FUNCTIONS = 3
LEAST_FUNCTIONS = 24


def render(comparison: Comparison, *, verbose: bool = False, width: int = 100) -> str:
    """A header, a row for each site that changed (``verbose``: for every site), and the sums.

    Two numbers with an arrow between them are those of the first and of the second report.
    Functions are wrapped to ``width`` columns; a name keeps its line however long it is.
    """
    before, after = comparison.before, comparison.after
    lines = [
        printable(f"{before.target.kind} {before.target.name}"),
        f"  before: {_about(before)}",
        f"  after:  {_about(after)}",
        "",
    ]
    shown = [change for change in comparison.changes if verbose or change.kind is not Kind.SAME]
    if shown:
        table = tabulate(
            _fitted([_row(change) for change in shown], width),
            headers=HEADERS,
            tablefmt="simple",
            colalign=ALIGN,
            disable_numparse=True,
        )
        lines += [*(line.rstrip() for line in table.splitlines()), ""]
    counts = {kind: sum(change.kind is kind for change in comparison.changes) for kind in Kind}
    lines.append(", ".join(f"{number} {kind.value}" for kind, number in counts.items()))
    return "\n".join(lines) + "\n"


def _fitted(rows: list[tuple[str, ...]], width: int) -> list[tuple[str, ...]]:
    """The rows with their last cells wrapped into the columns that the others leave."""
    heads = [f"{head}  " for head in HEADERS]  # tabulate pads them so
    others = [max(map(len, cells)) for cells in zip(heads, *rows, strict=True)][:-1]
    left = max(width - sum(column + 2 for column in others), LEAST_FUNCTIONS)
    return [
        (
            *cells,
            textwrap.fill(last, left, break_long_words=False, break_on_hyphens=False),
        )
        for *cells, last in rows
    ]


def _about(report: Report) -> str:
    cycles = plural(report.cycles, "cycle")
    build_id = report.target.build_id
    build = "" if build_id is None else f", build-id {build_id[:12]}"
    trace = "" if report.trust.complete else ", INCOMPLETE"
    return printable(f"{cycles}, Linux {report.kernel.release}{build}{trace}")


def _row(change: Change) -> tuple[str, ...]:
    sides = [one for one in (change.before, change.after) if one is not None]
    verdicts = [one.verdict.label for one in sides]
    functions = " <- ".join(function(frame) for frame in change.frames[:SHOWN_FUNCTIONS])
    source = next((frame.source for frame in change.frames if frame.source is not None), None)
    at = "" if source is None else f" {source.file}:{source.line}"
    cells = (
        change.kind.value,
        _arrow(verdicts) + (" (excused)" if sides[-1].excused else ""),
        change.allocator,
        _arrow([str(one.outstanding.count) for one in sides]),
        _arrow([size(one.outstanding.size_bytes) for one in sides]),
        _arrow([f"{one.rate:.3g}" for one in sides]),
        f"{functions}{at}",
    )
    return tuple(printable(cell) for cell in cells)


def _arrow(values: list[str]) -> str:
    return " -> ".join(dict.fromkeys(values))


def render_json(comparison: Comparison) -> str:
    """One JSON document with a newline at its end, ASCII only. Its schema is
    docs/diff-1.schema.json.
    """
    document = {
        "schema": SCHEMA,
        "before": _report(comparison.before),
        "after": _report(comparison.after),
        "totals": {
            kind.value: sum(change.kind is kind for change in comparison.changes) for kind in Kind
        },
        "changes": [_change(change) for change in comparison.changes],
    }
    return json.dumps(document, indent=2) + "\n"


def _report(report: Report) -> dict[str, Any]:
    return {
        "kernel": {"release": report.kernel.release, "machine": report.kernel.machine},
        "target": {
            "kind": report.target.kind,
            "name": report.target.name,
            "build_id": report.target.build_id,
        },
        "cycles": report.cycles,
        "complete": report.trust.complete,
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "change": change.kind.value,
        "allocator": change.allocator,
        "frames": [
            {
                "symbol": frame.symbol,
                "module": frame.module,
                "source": None
                if frame.source is None
                else {"file": frame.source.file, "line": frame.source.line},
            }
            for frame in change.frames
        ],
        "before": _side(change.before),
        "after": _side(change.after),
    }


def _side(side: Side | None) -> dict[str, Any] | None:
    if side is None:
        return None
    return {
        "sites": side.sites,
        "verdict": side.verdict.label,
        "outstanding": {
            "count": side.outstanding.count,
            "bytes": side.outstanding.size_bytes,
        },
        "per_cycle": {"count": round(side.rate, 6), "bytes": round(side.rate_bytes, 3)},
        "excused": side.excused,
    }
