"""What a format is: the interface that every module of this package with a RENDERER has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kleak.model.report import Report, Verdict
from kleak.model.session import Session


@dataclass(frozen=True, slots=True)
class Capture:
    """One session, the name of its file, and the report on it alone.

    ``site_ids`` name the report's sites, in their order: equal for the same site in any session.
    """

    name: str
    session: Session
    report: Report
    site_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Material:
    """What there is to show: a report, and the one or more captures that it was made from."""

    report: Report
    captures: tuple[Capture, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """How to show it. ``width`` is in columns. A site fails from the verdict ``fail_on`` on;
    ``exact`` writes a table's sizes in bytes; ``locate`` turns the name of a source file into its
    path in the repository.
    """

    verbose: bool = False
    width: int = 100
    color: bool = False
    fail_on: Verdict = Verdict.LIKELY
    exact: bool = False
    locate: Callable[[str], str] = str


@dataclass(frozen=True, slots=True)
class Renderer:
    """One format. ``extensions`` are the ends of file names that mean it, its own one first.

    ``render`` returns text with a newline at its end, or bytes if the format is ``binary``.
    ``groups``: it can show a report's groups, and not only its sites.
    """

    name: str
    extensions: tuple[str, ...]
    says: str
    render: Callable[[Material, Look], str | bytes]
    binary: bool = False
    groups: bool = False
