"""The table of sites as Parquet, for SQL over many sessions: docs/fleet.md."""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from kleak.errors import UnsupportedError
from kleak.model.report import JudgedSite
from kleak.model.session import Frame
from kleak.render.renderer import Capture, Look, Material, Renderer
from kleak.render.stack_text import whole_stack
from kleak.wording import frame_text


def render(material: Material, look: Look) -> bytes:
    """One row a site of each capture; captures are not merged here, that is the query's job.

    A capture without sites has one row, in which all that tells of a site is null.

    Raises UnsupportedError without pyarrow.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UnsupportedError(
            "the format parquet needs pyarrow: pip install kleak[parquet]"
        ) from error
    rows: list[dict[str, Any]] = []
    for capture in material.captures:
        session, sites = _session(capture), capture.report.sites
        ids = {site.rank: one for site, one in zip(sites, capture.site_ids, strict=True)}
        rows += [{**session, **_site(site, ids)} for site in sites] or [session]
    table = pyarrow.Table.from_pylist(rows, schema=_schema(pyarrow))
    file = io.BytesIO()
    parquet.write_table(table, file, compression="zstd")
    return file.getvalue()


def _schema(pyarrow: Any) -> Any:
    text, number = pyarrow.string(), pyarrow.int64()
    frame = pyarrow.struct(
        [
            ("symbol", text),
            ("offset", pyarrow.uint64()),
            ("module", text),
            ("file", text),
            ("line", number),
        ]
    )
    return pyarrow.schema(
        [
            ("session", text),
            ("started_at", pyarrow.timestamp("us", tz="UTC")),
            ("host", text),
            ("kernel_release", text),
            ("kernel_machine", text),
            ("target_kind", text),
            ("target_name", text),
            ("target_version", text),
            ("target_build_id", text),
            ("cycles", number),
            ("complete", pyarrow.bool_()),
            ("site_id", text),
            ("verdict", text),
            ("score", pyarrow.float64()),
            ("allocator", text),
            ("count", number),
            ("bytes", number),
            ("requested_bytes", number),
            ("module", text),
            ("function", text),
            ("file", text),
            ("line", number),
            ("stack", text),
            ("frames", pyarrow.list_(frame)),
            ("parent_id", text),
            ("parent_by", text),
            ("parent_says", text),
            ("excuse_by", text),
            ("excuse_says", text),
        ]
    )


def _session(capture: Capture) -> dict[str, Any]:
    report, about = capture.report, capture.session.circumstances
    started = about.started_at
    return {
        "session": capture.name,
        "started_at": None if started is None else datetime.fromtimestamp(started, timezone.utc),
        "host": about.host,
        "kernel_release": report.kernel.release,
        "kernel_machine": report.kernel.machine,
        "target_kind": report.target.kind,
        "target_name": report.target.name,
        "target_version": report.target.version,
        "target_build_id": report.target.build_id,
        "cycles": report.cycles,
        "complete": report.trust.complete,
    }


def _site(site: JudgedSite, ids: Mapping[int, str]) -> dict[str, Any]:
    """A site's part of its row; ``ids`` are the ids of its session's sites, by rank."""
    first, parent, excuse = site.frames[0], site.parent, site.excuse
    stack = whole_stack(site)
    return {
        "site_id": ids[site.rank],
        "verdict": site.verdict.label,
        "score": site.score,
        "allocator": site.allocator,
        "count": site.outstanding.count,
        "bytes": site.outstanding.size_bytes,
        "requested_bytes": site.requested_bytes,
        "module": first.module,
        "function": first.symbol,
        "file": first.source.file if first.source else None,
        "line": first.source.line if first.source else None,
        "stack": "\n".join(frame_text(frame) for frame in stack),
        "frames": [_frame(frame) for frame in stack],
        "parent_id": ids.get(parent.rank) if parent else None,
        "parent_by": parent.by if parent else None,
        "parent_says": parent.says if parent else None,
        "excuse_by": excuse.by if excuse else None,
        "excuse_says": excuse.says if excuse else None,
    }


def _frame(frame: Frame) -> dict[str, Any]:
    source = frame.source
    return {
        "symbol": frame.symbol,
        "offset": frame.offset,
        "module": frame.module,
        "file": source.file if source else None,
        "line": source.line if source else None,
    }


RENDERER = Renderer(
    "parquet",
    (".parquet",),
    "a row a site of each session, for SQL engines",
    render,
    binary=True,
)
