"""Witness: the kernel's own counters by line of source (memory allocation profiling).

A module's rows go with the module; what it left then is in the kernel log. Here it is the rows of
code that is still there: of the kernel's functions that allocated for the target.
"""

from __future__ import annotations

from pathlib import PurePath

from kleak.analysis.findings import Finding
from kleak.analysis.session_reports import first_and_last, once_per_session
from kleak.analysis.weights import Fact
from kleak.frames.names import base_name
from kleak.frames.stacks import split_allocator
from kleak.model.session import Session, TracedSite
from kleak.parsers import allocinfo
from kleak.parsers.allocinfo import CallSite

NAME = "allocinfo"
_Key = tuple["str | None", str]
_Place = tuple[str, int]


def judge(site: TracedSite, session: Session) -> Finding | None:
    """Judge whether the rows of the caller grew by as many calls as the site has outstanding.

    None where no row is of its caller, and where the rows could not be read before and after.
    Nor where an allocator's function has a row: it is of this memory then, as kstrdup()'s is of
    all strings, and its caller's row of other objects.
    """
    grown = _growth(session)
    allocators, rest = split_allocator(site.frames)
    # Where only the call site is known, so is not through what it allocated.
    if grown is None or not allocators or not rest or rest[0].symbol is None:
        return None
    if any((None, base_name(frame.symbol or "")) in grown for frame in allocators):
        return None
    rows = grown.get((rest[0].module, base_name(rest[0].symbol)), {})
    source = rest[0].source
    place = None if source is None else (PurePath(source.file).name, source.line)
    if place in rows:
        rows = {place: rows[place]}
    if not rows:
        return None
    calls = sum(rows.values())
    held = site.outstanding.count
    where = ", ".join(f"{file}:{line}" for file, line in sorted(rows))
    if calls >= held:
        return Finding(NAME, Fact.ROWS_GREW, f"/proc/allocinfo has {calls:+d} at {where}")
    if calls * 2 < held:
        says = f"/proc/allocinfo has {calls:+d} at {where}, not +{held}: freed, and the tracer"
        return Finding(NAME, Fact.ROWS_DID_NOT_GROW, f"{says} missed it")
    return None


@once_per_session
def _growth(session: Session) -> dict[_Key, dict[_Place, int]] | None:
    """By module and function, by file and line: calls more than before. None: not read twice."""
    reports = first_and_last(session, NAME)
    if reports is None:
        return None
    before, after = (_rows(text) for text in reports)
    found: dict[_Key, dict[_Place, int]] = {}
    for row, site in {**before, **after}.items():
        calls = [report[row].calls if row in report else 0 for report in (before, after)]
        places = found.setdefault((site.module, site.function), {})
        place = (PurePath(site.file).name, site.line)
        places[place] = places.get(place, 0) + calls[1] - calls[0]
    return found


def _rows(text: str) -> dict[tuple[str, int, str | None, str], CallSite]:
    report = allocinfo.parse(text, errors="collect")
    return {(row.file, row.line, row.module, row.function): row for row in report.sites}
