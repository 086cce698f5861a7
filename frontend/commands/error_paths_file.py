"""The error paths of a report that was written as JSON."""

from __future__ import annotations

from typing import Any

from kleak.commands.json_fields import frame, items, maybe, number, table, text
from kleak.model.error_paths import ErrorPath, ErrorPaths, Outcome
from kleak.model.faults import FailedCall, NotTried
from kleak.model.report import Injected


def read_error_paths(document: Any) -> ErrorPaths | None:
    """Read them, if the report has any. Raises KeyError, TypeError and ValueError for damage."""
    if "error_paths" not in document:
        return None
    found = table(document, "error_paths")
    return ErrorPaths(
        tuple(_path(one) for one in items(found, "failures")),
        tuple(_call(one) for one in items(found, "not_reached")),
        tuple(
            NotTried(text(one, "function"), number(one, "calls"), text(one, "why"))
            for one in items(found, "not_tried")
        ),
        tuple((_call(table(one, "call")), number(one, "nth")) for one in items(found, "left")),
        number(found, "calls"),
    )


def read_injected(site: Any) -> Injected | None:
    """Read which failure a site needs, if any."""
    if "injected" not in site:
        return None
    found = table(site, "injected")
    return Injected(number(found, "failure"), text(found, "call"), text(found, "when"))


def _path(found: Any) -> ErrorPath:
    call = _call(table(found, "call"))
    return ErrorPath(
        number(found, "number"),
        call,
        number(found, "nth"),
        Outcome(text(found, "outcome")),
        number(found, "times"),
        maybe(text, found, "phase"),
        text(found, "said"),
        text(found, "when"),
        text(found, "log"),
        maybe(text, found, "crash"),
    )


def _call(found: Any) -> FailedCall:
    return FailedCall(
        number(found, "number"),
        text(found, "function"),
        text(found, "returns"),
        frame(table(found, "place")),
        number(found, "made"),
    )
