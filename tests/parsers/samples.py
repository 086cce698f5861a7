"""The samples in tests/data with the parser that reads each, as one record stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kleak.parsers import (
    allocinfo,
    buddyinfo,
    kmemleak,
    kmsg,
    meminfo,
    page_owner,
    slabinfo,
    slub_traces,
    vmallocinfo,
    zoneinfo,
)
from tests.support.paths import TESTS

DATA = TESTS / "data"

# Each takes (source, errors, problems) and gives all records.
Reader = Callable[[Any, Any, list], Iterable[Any]]


def _whole(parse: Callable[..., Any], records: str) -> Reader:
    def read(source, errors, problems):
        result = parse(source, errors=errors)
        problems.extend(result.problems)
        return getattr(result, records)

    return read


def _stream(stream: Callable[..., Any]) -> Reader:
    return lambda source, errors, problems: list(stream(source, errors=errors, problems=problems))


def _reports(stream: Callable[..., Any], records: str) -> Reader:
    def read(source, errors, problems):
        found = []
        for report in stream(source, errors=errors):
            problems.extend(report.problems)
            found += getattr(report, records)
        return found

    return read


READERS: dict[str, Reader] = {
    "vmallocinfo": _stream(vmallocinfo.stream),
    "kmemleak": _stream(kmemleak.stream),
    "meminfo": _stream(meminfo.stream),
    "slabinfo": _reports(slabinfo.stream, "caches"),
    "allocinfo": _reports(allocinfo.stream, "sites"),
    "buddyinfo": _whole(buddyinfo.parse, "zones"),
    "zoneinfo": _whole(zoneinfo.parse, "zones"),
    "slub_traces": _stream(slub_traces.stream),
    "page_owner": _stream(page_owner.stream),
    "page_owner_stacks": _stream(page_owner.stream_stacks),
    "kmsg": lambda source, errors, problems: list(kmsg.stream(source)),
}

SAMPLES = sorted(path for report in READERS for path in (DATA / report).glob("*.txt"))
assert {path.parent.name for path in SAMPLES} == set(READERS)


def sample_id(path: Path) -> str:
    """What a test is called after: report and case."""
    return f"{path.parent.name}/{path.stem}"


def read(report: str, source: Any, errors: str = "raise") -> tuple[list[Any], list[Any]]:
    """All records and all problems."""
    problems: list[Any] = []
    return list(READERS[report](source, errors, problems)), problems
