"""The report as CSV: a row a site, or a row a group."""

from __future__ import annotations

import csv
import io

from kleak.model.report import JudgedSite, Report
from kleak.render.escape import printable
from kleak.render.renderer import Look, Material, Renderer
from kleak.render.stack_text import whole_stack
from kleak.wording import frame_text

COLUMNS = (
    "rank",
    "verdict",
    "score",
    "allocator",
    "count",
    "bytes",
    "requested_bytes",
    "per_cycle",
    "sessions",
    "module",
    "function",
    "file",
    "line",
    "stack",
    "parent_rank",
    "parent_by",
    "parent_says",
    "excuse_by",
    "excuse_says",
)
GROUP_COLUMNS = ("sites", "count", "bytes", "verdict")

# A spreadsheet takes a text that starts so for a formula, and runs it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def render(material: Material, look: Look) -> str:
    """Rows as RFC 4180 has them but for bare newlines, with a header. Sizes are bytes."""
    report = material.report
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if report.grouped_by is not None:
        writer.writerow((report.grouped_by, *GROUP_COLUMNS))
        writer.writerows(_group_rows(report))
    else:
        writer.writerow(COLUMNS)
        writer.writerows(_row(site) for site in report.sites)
    return text.getvalue()


def _row(site: JudgedSite) -> tuple[object, ...]:
    first, parent, excuse = site.frames[0], site.parent, site.excuse
    per_cycle = "" if site.per_cycle is None else " ".join(str(t.count) for t in site.per_cycle)
    return (
        site.rank,
        site.verdict.label,
        f"{site.score:.1f}",
        _cell(site.allocator),
        site.outstanding.count,
        site.outstanding.size_bytes,
        "" if site.requested_bytes is None else site.requested_bytes,
        per_cycle,
        len(site.sightings) or 1,
        _cell(first.module or ""),
        _cell(first.symbol or ""),
        _cell(first.source.file if first.source else ""),
        first.source.line if first.source else "",
        _cell("; ".join(frame_text(frame) for frame in whole_stack(site))),
        "" if parent is None else parent.rank,
        _cell(parent.by if parent else ""),
        _cell(parent.says if parent else ""),
        _cell(excuse.by if excuse else ""),
        _cell(excuse.says if excuse else ""),
    )


def _group_rows(report: Report) -> list[tuple[object, ...]]:
    return [
        (
            _cell(group.key),
            group.sites,
            group.outstanding.count,
            group.outstanding.size_bytes,
            group.verdict.label,
        )
        for group in report.groups
    ]


def _cell(text: str) -> str:
    shown = printable(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


RENDERER = Renderer("csv", (".csv",), "a row a site, for spreadsheets", render, groups=True)
